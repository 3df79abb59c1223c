"""Held-out evidence: fit on one half of every batch, judge on the other half.

Tests on the very data a method was fitted on always look perfect; only scans it has not seen show what it does. Where
scans repeat subjects, whole subjects go into one half. Large tables are judged on drawn features, see scope.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import (
    Algorithm,
    Dataset,
    FloatArray,
    HarmonizationRefused,
    IntArray,
)
from harmonization_app.algorithms.design import batch_codes, code_covariates
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.algorithms.specification import BatchSizePolicy, OverlapPolicy, Specification
from harmonization_app.diagnostics.batch_tests import BatchSummary, measure_batch_effects, summarize
from harmonization_app.diagnostics.classification import Classification, classify_batches
from harmonization_app.diagnostics.covariance import CovarianceDistance, covariance_distance
from harmonization_app.diagnostics.noise_floor import noise_floor, noise_upper
from harmonization_app.diagnostics.projection import usable_columns
from harmonization_app.diagnostics.subjects import Subjects, repeated_subjects

SPLITS = 5
SMALLEST_HALF = 3
# Draws of subjects for one split, of which the first that leaves enough scans of every batch is taken.
MOST_DRAWS = 20


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

    `noise_floor` is the one to expect of batches that do not differ, `noise_upper` what these reach at most in 19 of 20
    tables. `covariance`
    and `classification` are of the first split's held-out half. `subjects_in_both`: subjects have scans in both halves,
    since batches have too few of them; what the halves share beside batch is then not held out.
    """

    evaluable: bool
    reason: str
    seed: int
    splits: tuple[Split, ...] = ()
    fitted_after: float | None = None
    held_out_before: float | None = None
    held_out_after: float | None = None
    noise_floor: float | None = None
    noise_upper: float | None = None
    split_by: str = "scan"
    features: int = 0
    covariance: dict[str, Any] = field(default_factory=dict)
    classification: dict[str, Any] = field(default_factory=dict)
    subjects_in_both: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Half:
    """The held-out half of one split: its codes, covariates and subjects, and its values before and after."""

    batches: tuple[str, ...]
    codes: IntArray
    covariates: FloatArray
    subjects: Subjects | None
    before: FloatArray
    after: FloatArray


def evaluate_held_out(algorithm: Algorithm, dataset: Dataset, specification: Specification) -> HeldOut:
    """Return the evidence of repeated half splits within batches, seeded by the plan's seed."""
    seed = specification.seed
    if not algorithm.capabilities.train_apply:
        return HeldOut(False, f"{algorithm.title} cannot correct scans it was not fitted on.", seed)
    _, codes = batch_codes(dataset, specification)
    if np.bincount(codes).min() < 2 * SMALLEST_HALF:
        return HeldOut(False, f"A batch has fewer than {2 * SMALLEST_HALF} scans, too few to split.", seed)
    random = np.random.default_rng(seed)
    relaxed = relaxed_for_parts(specification)
    subjects = repeated_subjects(dataset, specification)
    by_subject = None if subjects is None else _all_by_subject(codes, subjects.codes, random)
    split_by = "scan" if by_subject is None else "subject"
    splits: list[Split] = []
    first: _Half | None = None
    try:
        for halves in by_subject or [_halves(codes, random) for _ in range(SPLITS)]:
            split, half = _split(algorithm, dataset, relaxed, *halves)
            splits.append(split)
            first = first or half
    except HarmonizationRefused as refusal:
        return HeldOut(False, f"A half of the data cannot be harmonized: {refusal.detail}", seed)
    assert first is not None
    return HeldOut(
        True,
        "",
        seed,
        tuple(splits),
        _median([split.fitted_after for split in splits]),
        _median([split.held_out_before for split in splits]),
        _median([split.held_out_after for split in splits]),
        *_noise(first, seed),
        split_by,
        dataset.values.shape[1],
        *_further(first, seed),
        subjects_in_both=subjects is not None and by_subject is None,
    )


def relaxed_for_parts(specification: Specification) -> Specification:
    """Return the plan with the limits on batch sizes and overlap lowered, to fit parts of what passed them."""
    return replace(
        specification,
        batch_size=BatchSizePolicy(2, 2, 2, 2, 1),
        overlap=OverlapPolicy(specification.overlap.warn_smd_above, 0.0),
    )


def _noise(half: _Half, seed: int) -> tuple[float, float | None]:
    """Return what batches that do not differ show in a held-out half: expected, and at most in 19 of 20 tables."""
    repeats = None if half.subjects is None else half.subjects.codes
    usable = usable_columns(half.before, half.after)
    floor = noise_floor(half.codes, half.covariates, half.after[:, usable], repeats)
    random = np.random.default_rng(seed)
    return floor, noise_upper(half.codes, half.covariates, half.before[:, usable], repeats, random)


def _further(half: _Half, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the distance between covariances and the classification in a held-out half, before and after."""
    usable = usable_columns(half.before, half.after)
    rows = np.arange(len(half.codes)) if half.subjects is None else half.subjects.one_scan_each(seed)
    codes, covariates = half.codes[rows], half.covariates[rows]
    tables = [values[np.ix_(rows, usable)] for values in (half.before, half.after)]
    distances = [covariance_distance(values, codes, covariates, half.batches, seed) for values in tables]
    classified: list[Classification] = [
        classify_batches(values, codes, covariates, seed) for values in tables
    ]
    return (
        _distances(*distances),
        dict(zip(("before", "after"), (item.to_json() for item in classified), strict=True)),
    )


def _distances(before: CovarianceDistance, after: CovarianceDistance) -> dict[str, Any]:
    return {
        "evaluable": before.evaluable and after.evaluable,
        "reason": before.reason or after.reason,
        "before": before.distance,
        "after": after.distance,
        "expected": after.expected,
        "p_before": before.p,
        "p_after": after.p,
    }


def _halves(codes: IntArray, random: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return the rows to fit on (half of each batch, rounded down) and the rest, both in order."""
    order = random.permutation(len(codes))
    fit = [
        order[codes[order] == batch][: int((codes == batch).sum()) // 2]
        for batch in range(int(codes.max()) + 1)
    ]
    chosen = np.sort(np.concatenate(fit))
    return chosen, np.setdiff1d(np.arange(len(codes)), chosen)


def _all_by_subject(
    codes: IntArray, subjects: IntArray, random: np.random.Generator
) -> list[tuple[IntArray, IntArray]] | None:
    """Return all splits by whole subjects; None where one cannot be had, so that never are only some of them so."""
    splits = []
    for _ in range(SPLITS):
        drawn = (_halves_of_subjects(codes, subjects, random) for _ in range(MOST_DRAWS))
        halves = next((found for found in drawn if found is not None), None)
        if halves is None:
            return None
        splits.append(halves)
    return splits


def _halves_of_subjects(
    codes: IntArray, subjects: IntArray, random: np.random.Generator
) -> tuple[IntArray, IntArray] | None:
    """Return the rows of half of the subjects of each first batch, and the rest; None where a part is too small."""
    first_rows = np.unique(subjects, return_index=True)[1]
    chosen = np.zeros(len(first_rows), dtype=bool)
    home = codes[first_rows]
    for batch in np.unique(home):
        own = random.permutation(np.flatnonzero(home == batch))
        chosen[own[: len(own) // 2]] = True
    fit = np.flatnonzero(chosen[subjects])
    rest = np.flatnonzero(~chosen[subjects])
    batches = int(codes.max()) + 1
    sizes = [np.bincount(codes[rows], minlength=batches).min() for rows in (fit, rest)]
    return (fit, rest) if min(sizes) >= SMALLEST_HALF else None


def _split(
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    fit_rows: IntArray,
    other_rows: IntArray,
) -> tuple[Split, _Half]:
    fitted, other = dataset.select(fit_rows), dataset.select(other_rows)
    model = algorithm.fit(fitted, specification)
    corrected = np.asarray(algorithm.apply(model, other).values)
    summaries = [
        _summary(part, values, model.features, model.coding, specification)
        for part, values in (
            (fitted, np.asarray(algorithm.apply(model, fitted).values)),
            (other, other.values),
            (other, corrected),
        )
    ]
    batches, codes = batch_codes(other, specification)
    covariates = code_covariates(other, model.coding)
    subjects = repeated_subjects(other, specification)
    half = _Half(batches, codes, covariates, subjects, other.values, corrected)
    return Split(*summaries), half


def _summary(
    part: Dataset,
    values: FloatArray,
    features: tuple[str, ...],
    coding: CovariateCoding,
    specification: Specification,
) -> BatchSummary:
    _, codes = batch_codes(part, specification)
    tests = measure_batch_effects(
        values, codes, code_covariates(part, coding), features, ranks_and_scales=False
    )
    return summarize(tests)


def _median(summaries: list[BatchSummary]) -> float | None:
    sizes = [
        item.median_partial_eta_squared for item in summaries if item.median_partial_eta_squared is not None
    ]
    return float(np.median(sizes)) if sizes else None
