"""Held-out evidence: fit on one half of every batch, judge on the other half.

Tests on the very data a method was fitted on always look perfect; only scans it has not seen show what it does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, HarmonizationRefused, IntArray
from harmonization_app.algorithms.design import batch_codes, code_covariates
from harmonization_app.algorithms.specification import BatchSizePolicy, OverlapPolicy, Specification
from harmonization_app.diagnostics.batch_tests import BatchSummary, measure_batch_effects, summarize

SPLITS = 5
SMALLEST_HALF = 3


@dataclass(frozen=True, slots=True)
class Split:
    """One split: batch effects in the fitted half after, and in the held-out half before and after.

    Linear model only: the counts of rank and scale effects are None.
    """

    fitted_after: BatchSummary
    held_out_before: BatchSummary
    held_out_after: BatchSummary


@dataclass(frozen=True, slots=True)
class HeldOut:
    """All splits, or the reason why there are none; medians over splits of the median partial eta squared.

    `noise_floor` is the partial eta squared to expect of no batch effect at all: (batches - 1) / (scans - 1).
    """

    evaluable: bool
    reason: str
    seed: int
    splits: tuple[Split, ...] = ()
    fitted_after: float | None = None
    held_out_before: float | None = None
    held_out_after: float | None = None
    noise_floor: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_held_out(algorithm: Algorithm, dataset: Dataset, specification: Specification) -> HeldOut:
    """Return the evidence of repeated half splits within batches, seeded by the plan's seed."""
    seed = specification.seed
    if not algorithm.capabilities.train_apply:
        return HeldOut(False, f"{algorithm.title} cannot correct scans it was not fitted on.", seed)
    _, codes = batch_codes(dataset, specification)
    if np.bincount(codes).min() < 2 * SMALLEST_HALF:
        return HeldOut(False, f"A batch has fewer than {2 * SMALLEST_HALF} scans, too few to split.", seed)
    random = np.random.default_rng(seed)
    relaxed = replace(
        specification,
        batch_size=BatchSizePolicy(2, 2, 2, 2, 1),
        overlap=OverlapPolicy(specification.overlap.warn_smd_above, 0.0),
    )
    splits: list[Split] = []
    try:
        for _ in range(SPLITS):
            splits.append(_split(algorithm, dataset, relaxed, *_halves(codes, random)))
    except HarmonizationRefused as refusal:
        return HeldOut(False, f"A half of the data cannot be harmonized: {refusal.detail}", seed)
    held_out_scans = len(codes) - int(sum(np.bincount(codes) // 2))
    return HeldOut(
        True,
        "",
        seed,
        tuple(splits),
        _median([split.fitted_after for split in splits]),
        _median([split.held_out_before for split in splits]),
        _median([split.held_out_after for split in splits]),
        float(codes.max() / (held_out_scans - 1)),
    )


def _halves(codes: IntArray, random: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return the rows to fit on (half of each batch, rounded down) and the rest, both in order."""
    order = random.permutation(len(codes))
    fit = [
        order[codes[order] == batch][: int((codes == batch).sum()) // 2]
        for batch in range(int(codes.max()) + 1)
    ]
    chosen = np.sort(np.concatenate(fit))
    return chosen, np.setdiff1d(np.arange(len(codes)), chosen)


def _split(
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    fit_rows: IntArray,
    other_rows: IntArray,
) -> Split:
    fitted, other = dataset.select(fit_rows), dataset.select(other_rows)
    model = algorithm.fit(fitted, specification)
    summaries = []
    for part, values in (
        (fitted, algorithm.apply(model, fitted).values),
        (other, other.values),
        (other, algorithm.apply(model, other).values),
    ):
        _, codes = batch_codes(part, specification)
        tests = measure_batch_effects(
            values, codes, code_covariates(part, model.coding), model.features, ranks_and_scales=False
        )
        summaries.append(summarize(tests))
    return Split(*summaries)


def _median(summaries: list[BatchSummary]) -> float | None:
    sizes = [
        item.median_partial_eta_squared for item in summaries if item.median_partial_eta_squared is not None
    ]
    return float(np.median(sizes)) if sizes else None
