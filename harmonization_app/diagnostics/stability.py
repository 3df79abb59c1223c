"""What a harmonization would be without one batch, and whether a known effect comes through it.

Both harmonize again: leave-one-batch-out once per batch (at most 25), the spike-in once; tables of more than 250,000
cells are judged on evenly spaced features, mixed models on 8 of them. They are evidence on the method, not tests on its
own result.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, HarmonizationRefused, IntArray
from harmonization_app.algorithms.design import batch_codes, select_features
from harmonization_app.algorithms.kernel import BoolArray
from harmonization_app.algorithms.specification import Specification

MOST_BATCHES, MOST_CELLS = 25, 250_000
MIXED_MODEL_FEATURES = 8
SPIKE_SD = 0.5


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One batch left out: median and greatest move of the other scans' values (SD), or why it was refused."""

    batch: str
    median_move_sd: float | None
    greatest_move_sd: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SpikeIn:
    """A known shift given to half of each batch's scans, at random, and what is left of it afterwards.

    `recovered` is the median over features of the found shift over the planted one; 1 is all of it.
    """

    evaluable: bool
    reason: str
    planted_sd: float = SPIKE_SD
    recovered: float | None = None
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True, slots=True)
class Stability:
    """Leave-one-batch-out and spike-in; `reason` says why batches were not left out."""

    left_out: tuple[LeftOut, ...]
    reason: str
    spike_in: SpikeIn

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_stability(algorithm: Algorithm, dataset: Dataset, specification: Specification) -> Stability:
    """Return the evidence for a dataset that passed the gate, drawn by the plan's seed."""
    most = max(20, MOST_CELLS // max(len(dataset.rows), 1))
    if algorithm.capabilities.longitudinal:
        most = MIXED_MODEL_FEATURES
    dataset, specification = _narrowed(dataset, specification, most)
    batches, codes = batch_codes(dataset, specification)
    try:
        whole = algorithm.harmonize(dataset, specification).values
    except HarmonizationRefused as refusal:
        reason = f"The features drawn cannot be harmonized: {refusal.detail}"
        return Stability((), reason, SpikeIn(False, reason))
    spike = _spike_in(algorithm, dataset, specification, codes, whole)
    if len(batches) < 3:
        return Stability((), "With two batches none can be left out.", spike)
    if len(batches) > MOST_BATCHES:
        return Stability(
            (), f"With more than {MOST_BATCHES} batches none is left out, to bound the time.", spike
        )
    left_out = tuple(
        _without(algorithm, dataset, specification, batch, codes != index, whole)
        for index, batch in enumerate(batches)
    )
    return Stability(left_out, "", spike)


def _narrowed(dataset: Dataset, specification: Specification, most: int) -> tuple[Dataset, Specification]:
    """Return the dataset with at most so many, evenly spaced features, and the plan without the others' names."""
    if len(dataset.features) <= most:
        return dataset, specification
    at = np.unique(np.linspace(0, len(dataset.features) - 1, most).astype(int))
    names = tuple(dataset.features[i] for i in at)
    pools = tuple(
        replace(pool, features=tuple(name for name in pool.features if name in set(names)))
        for pool in specification.pools
    )
    kept = tuple(pool for pool in pools if pool.features)
    return select_features(dataset, names), replace(specification, features=names, pools=kept)


def _without(
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    batch: str,
    kept: BoolArray,
    whole: FloatArray,
) -> LeftOut:
    rows = np.flatnonzero(kept)
    try:
        values = algorithm.harmonize(dataset.select(rows), specification).values
    except HarmonizationRefused as refusal:
        return LeftOut(batch, None, None, refusal.detail)
    spread = np.nanstd(dataset.values, axis=0)
    moves = np.abs(values - whole[rows]) / np.where(spread > 0, spread, 1.0)
    return LeftOut(batch, float(np.nanmedian(moves)), float(np.nanmax(moves)))


def _spike_in(
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    codes: IntArray,
    whole: FloatArray,
) -> SpikeIn:
    random = np.random.default_rng(specification.seed)
    chosen = np.zeros(len(codes), dtype=bool)
    for batch in np.unique(codes):
        rows = random.permutation(np.flatnonzero(codes == batch))
        chosen[rows[: len(rows) // 2]] = True
    spread = np.nanstd(dataset.values, axis=0)
    varying = spread > 0
    planted = np.where(chosen[:, None], SPIKE_SD * spread, 0.0)
    try:
        spiked = algorithm.harmonize(dataset.with_values(dataset.values + planted), specification).values
    except HarmonizationRefused as refusal:
        return SpikeIn(False, refusal.detail)
    change = (spiked - whole)[:, varying]
    found = np.nanmean(change[chosen], axis=0) - np.nanmean(change[~chosen], axis=0)
    ratios = found / (SPIKE_SD * spread[varying])
    low, middle, high = (float(np.quantile(ratios, part)) for part in (0.025, 0.5, 0.975))
    return SpikeIn(True, "", SPIKE_SD, middle, low, high)
