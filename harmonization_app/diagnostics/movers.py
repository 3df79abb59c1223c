"""How far harmonization moved single values, which it moved most, and which it made implausible.

One pass by blocks of features; quantiles and distribution are taken of at most four million cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.kernel import BoolArray, blocks
from harmonization_app.diagnostics.scope import RANK_CELLS, draw_features

LARGEST = 20
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)
EDGES_SD = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
BLOCK_CELLS = 1 << 20
# Units in which a measurement cannot exceed a whole, and how much a whole is.
WHOLE_BY_UNIT = {"fraction": 1.0, "ratio": 1.0, "proportion": 1.0, "%": 100.0, "percent": 100.0}
MESSAGES = {
    "turned_non_positive": "was positive throughout and no longer is: a volume or a thickness cannot be",
    "turned_negative": "was never below zero and now is",
    "above_whole": "was within its unit's whole throughout and now is above it",
}


@dataclass(frozen=True, slots=True)
class Mover:
    """One cell before and after, and its shift in SD of the feature before."""

    row: str
    batch: str
    feature: str
    before: float
    after: float
    shift_sd: float


@dataclass(frozen=True, slots=True)
class Implausible:
    """Cells of one kind that harmonization made implausible; the first twenty are listed."""

    code: str
    message: str
    cells: int
    features: int
    listed: tuple[Mover, ...]


@dataclass(frozen=True, slots=True)
class Movers:
    """Quantiles and distribution of the absolute shift (SD), mean shift of each batch, the largest, implausible ones.

    `distribution` counts cells by edges: the last count is of those beyond the last edge. `turned_non_positive` lists
    cells of features that were positive throughout and no longer are.
    """

    quantiles_sd: dict[str, float]
    mean_shift_by_batch_sd: dict[str, float]
    largest: tuple[Mover, ...]
    turned_non_positive: tuple[Mover, ...]
    cells_turned_non_positive: int
    distribution: Mapping[str, Sequence[float]] = field(default_factory=dict)
    implausible: tuple[Implausible, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_movers(dataset: Dataset, after: FloatArray, seed: int = 0) -> Movers:
    """Return the movers between `dataset` and its harmonized values, both [scans x features]."""
    labels, codes = np.unique(np.array([str(label) for label in dataset.batches]), return_inverse=True)
    tally = _Tally(len(labels))
    for block in blocks(after.shape[1], len(after), BLOCK_CELLS):
        tally.add(dataset, after, block, codes)
    drawn = draw_features(after.shape, RANK_CELLS, seed)
    size = np.abs(_shift(dataset.values[:, drawn], after[:, drawn]))
    observed = size[np.isfinite(size)]
    bins = np.searchsorted(EDGES_SD, observed, side="right") - 1
    histogram = np.bincount(bins, minlength=len(EDGES_SD))
    quantiles = np.quantile(observed, QUANTILES) if observed.size else np.zeros(len(QUANTILES))
    largest = tally.largest(dataset, after)
    quantiles[-1] = abs(largest[0].shift_sd) if largest else 0.0
    found = tuple(tally.implausible(dataset, after))
    positive = next((item for item in found if item.code == "turned_non_positive"), None)
    return Movers(
        quantiles_sd={f"{q:g}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        mean_shift_by_batch_sd={
            str(label): float(total / count) if count else 0.0
            for label, total, count in zip(labels, tally.sums, tally.counts, strict=True)
        },
        largest=largest,
        turned_non_positive=positive.listed if positive else (),
        cells_turned_non_positive=positive.cells if positive else 0,
        distribution={"edges_sd": list(EDGES_SD), "cells": [int(count) for count in histogram]},
        implausible=found,
    )


class _Tally:
    """What a pass over blocks of features adds up."""

    def __init__(self, batches: int) -> None:
        self.sums, self.counts = np.zeros(batches), np.zeros(batches)
        self.top = np.empty((0, 2), dtype=np.int64)
        self.sizes = np.empty(0)
        self.kinds: dict[str, list[IntArray]] = {}
        self.cells: dict[str, int] = {}
        self.features: dict[str, int] = {}

    def add(self, dataset: Dataset, after: FloatArray, block: slice, codes: IntArray) -> None:
        before, own = dataset.values[:, block], after[:, block]
        shift = _shift(before, own)
        known = np.isfinite(shift)
        filled = np.where(known, shift, 0.0)
        batches = len(self.sums)
        self.sums += np.bincount(codes, weights=filled.sum(axis=1), minlength=batches)
        self.counts += np.bincount(codes, weights=known.sum(axis=1), minlength=batches)
        self._keep_largest(np.where(known, np.abs(filled), -1.0), block.start)
        for code, cells in _implausible(before, own, dataset.units[block]):
            at = np.argwhere(cells)
            self.cells[code] = self.cells.get(code, 0) + len(at)
            self.features[code] = self.features.get(code, 0) + len(np.unique(at[:, 1]))
            if len(at):
                self.kinds.setdefault(code, []).append(at[:LARGEST] + [0, block.start])

    def _keep_largest(self, size: FloatArray, start: int) -> None:
        flat = size.ravel()
        if len(self.sizes) == LARGEST:
            best = np.flatnonzero(flat > self.sizes[-1])
        else:
            best = np.argpartition(-flat, min(LARGEST, flat.size) - 1)[:LARGEST]
        at = np.column_stack(np.divmod(best, size.shape[1]))
        at[:, 1] += start
        known = flat[best] >= 0
        self.top = np.vstack([self.top, at[known]])
        self.sizes = np.concatenate([self.sizes, flat[best][known]])
        order = np.lexsort((self.top[:, 1], self.top[:, 0], -self.sizes))[:LARGEST]
        self.top, self.sizes = self.top[order], self.sizes[order]

    def largest(self, dataset: Dataset, after: FloatArray) -> tuple[Mover, ...]:
        return tuple(_mover(dataset, after, *cell) for cell in self.top.tolist())

    def implausible(self, dataset: Dataset, after: FloatArray) -> Iterator[Implausible]:
        for code, parts in self.kinds.items():
            shown = np.vstack(parts)[:LARGEST].tolist()
            listed = tuple(_mover(dataset, after, *cell) for cell in shown)
            yield Implausible(code, MESSAGES[code], self.cells[code], self.features[code], listed)


def _shift(before: FloatArray, after: FloatArray) -> FloatArray:
    spread = before.std(axis=0) if np.isfinite(before.sum()) else np.nanstd(before, axis=0)
    return np.asarray((after - before) / np.where(spread > 0, spread, 1.0))


def _implausible(
    before: FloatArray, after: FloatArray, units: tuple[str, ...]
) -> Iterator[tuple[str, BoolArray]]:
    least, greatest = np.fmin.reduce(before, axis=0), np.fmax.reduce(before, axis=0)
    yield "turned_non_positive", (after <= 0) & (least > 0)
    yield "turned_negative", (after < 0) & (least == 0)
    whole = np.array([WHOLE_BY_UNIT.get(unit.strip().lower(), np.inf) for unit in units])
    yield "above_whole", (after > whole) & (greatest <= whole)


def _mover(dataset: Dataset, after: FloatArray, row: int, column: int) -> Mover:
    before, moved = dataset.values[:, column], after[:, column]
    spread = float(np.nanstd(before)) or 1.0
    return Mover(
        dataset.rows[row],
        str(dataset.batches[row]),
        dataset.features[column],
        float(before[row]),
        float(moved[row]),
        float((moved[row] - before[row]) / spread),
    )
