"""How far harmonization moved single values, and which it moved most."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray

LARGEST = 20
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)


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
class Movers:
    """Quantiles of the absolute shift (SD), mean shift of each batch, the largest, and values turned implausible.

    `turned_non_positive` lists cells of features that were positive throughout and no longer are.
    """

    quantiles_sd: dict[str, float]
    mean_shift_by_batch_sd: dict[str, float]
    largest: tuple[Mover, ...]
    turned_non_positive: tuple[Mover, ...]
    cells_turned_non_positive: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_movers(dataset: Dataset, after: FloatArray) -> Movers:
    """Return the movers between `dataset` and its harmonized values, both [scans x features]."""
    before = dataset.values
    spread = np.nanstd(before, axis=0)
    shift = (after - before) / np.where(spread > 0, spread, 1.0)
    size = np.abs(shift)
    observed = size[np.isfinite(size)]
    quantiles = np.quantile(observed, QUANTILES) if observed.size else np.zeros(len(QUANTILES))
    labels = np.array([str(label) for label in dataset.batches])
    means = {label: float(np.nanmean(shift[labels == label])) for label in sorted(set(labels.tolist()))}
    ranked = np.nan_to_num(size, nan=-1.0).ravel()
    count = min(LARGEST, ranked.size)
    top = np.argpartition(-ranked, count - 1)[:count]
    top = top[np.lexsort((top, -ranked[top]))]
    positive = np.nanmin(before, axis=0) > 0
    turned = np.flatnonzero((after <= 0) & positive)
    return Movers(
        quantiles_sd={f"{q:g}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        mean_shift_by_batch_sd=means,
        largest=tuple(_mover(dataset, after, shift, int(cell)) for cell in top if ranked[cell] >= 0),
        turned_non_positive=tuple(_mover(dataset, after, shift, int(cell)) for cell in turned[:LARGEST]),
        cells_turned_non_positive=len(turned),
    )


def _mover(dataset: Dataset, after: FloatArray, shift: FloatArray, cell: int) -> Mover:
    row, column = divmod(cell, after.shape[1])
    return Mover(
        dataset.rows[row],
        str(dataset.batches[row]),
        dataset.features[column],
        float(dataset.values[row, column]),
        float(after[row, column]),
        float(shift[row, column]),
    )
