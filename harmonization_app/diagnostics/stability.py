"""What a harmonization would be without one batch, and whether a known effect comes through it.

Both harmonize again: leave-one-batch-out once per batch (at most 25), the spike-in once; large tables are judged on
drawn features (scope.py), mixed models on 8 of them. They are evidence on the method, not tests on its own result.
For the five batches that move the other scans most, the move is set beside that when as many scans are left out of
all batches at random: what is above that is the batch's own doing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, HarmonizationRefused, IntArray
from harmonization_app.algorithms.design import batch_codes
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.heldout import relaxed_for_parts

MOST_BATCHES = 25
# Batches, those that move the others most, whose move is set beside that of as many scans of all batches.
MOST_NULLS = 5
SPIKE_SD = 0.5


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One batch left out: median and greatest move of the other scans' values (SD), or why it was refused.

    `expected_move_sd` is the median move when as many scans of all batches, drawn by the seed, are left out; None
    for all but the five batches that move the others most, and where that cannot be.
    """

    batch: str
    median_move_sd: float | None
    greatest_move_sd: float | None
    expected_move_sd: float | None = None
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
    features: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_stability(algorithm: Algorithm, dataset: Dataset, specification: Specification) -> Stability:
    """Return the evidence for a dataset that passed the gate, drawn by the plan's seed."""
    batches, codes = batch_codes(dataset, specification)
    features = dataset.values.shape[1]
    try:
        whole = np.asarray(algorithm.harmonize(dataset, specification).values)
    except HarmonizationRefused as refusal:
        reason = f"The features drawn cannot be harmonized: {refusal.detail}"
        return Stability((), reason, SpikeIn(False, reason), features)
    spike = _spike_in(algorithm, dataset, specification, codes, whole)
    if len(batches) < 3:
        return Stability((), "With two batches none can be left out.", spike, features)
    if len(batches) > MOST_BATCHES:
        reason = f"With more than {MOST_BATCHES} batches none is left out, to bound the time."
        return Stability((), reason, spike, features)
    left_out = [
        _without(algorithm, dataset, specification, batch, np.flatnonzero(codes != index), whole)
        for index, batch in enumerate(batches)
    ]
    random = np.random.default_rng(specification.seed)
    for index in sorted(range(len(batches)), key=lambda i: -(left_out[i].median_move_sd or 0.0))[:MOST_NULLS]:
        others = _thinned(codes, int((codes == index).sum()), random)
        null = _without(algorithm, dataset, relaxed_for_parts(specification), batches[index], others, whole)
        left_out[index] = replace(left_out[index], expected_move_sd=null.median_move_sd)
    return Stability(tuple(left_out), "", spike, features)


def _thinned(codes: IntArray, count: int, random: np.random.Generator) -> IntArray:
    """Return the rows left when about `count` are taken out of all batches in proportion."""
    share = count / len(codes)
    kept = []
    for batch in np.unique(codes):
        own = random.permutation(np.flatnonzero(codes == batch))
        kept.append(own[round(len(own) * share) :])
    return np.sort(np.concatenate(kept))


def _without(
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    batch: str,
    rows: IntArray,
    whole: FloatArray,
) -> LeftOut:
    try:
        values = np.asarray(algorithm.harmonize(dataset.select(rows), specification).values)
    except HarmonizationRefused as refusal:
        return LeftOut(batch, None, None, None, refusal.detail)
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
    if not varying.any():
        return SpikeIn(False, "No feature varies.")
    planted = np.where(chosen[:, None], SPIKE_SD * spread, 0.0)
    try:
        spiked = algorithm.harmonize(dataset.with_values(dataset.values + planted), specification).values
    except HarmonizationRefused as refusal:
        return SpikeIn(False, refusal.detail)
    change = (np.asarray(spiked) - whole)[:, varying]
    found = np.nanmean(change[chosen], axis=0) - np.nanmean(change[~chosen], axis=0)
    ratios = found / (SPIKE_SD * spread[varying])
    low, middle, high = (float(np.quantile(ratios, part)) for part in (0.025, 0.5, 0.975))
    return SpikeIn(True, "", SPIKE_SD, middle, low, high)
