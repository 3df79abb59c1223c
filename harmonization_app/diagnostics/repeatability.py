"""Travelling subjects: how alike one subject's scans of several batches are, before and after.

Subjects scanned in more than one batch within a quarter of the plan's unit of time (years, as a rule) are the hardest
evidence there is: the true value is the same. Without a time column nothing is said, but for the method that takes all
scans of a subject as travelling ones anyway. Two-way analysis of variance of
subject and batch by least squares, unbalanced tables included: ICC(2,1) is the share of variance between subjects in
that of subjects, batches and error (Shrout and Fleiss, Psychol Bull 86:420 (1979), by variance components);
repeatability coefficient 2.77 within-subject SD across batches (Raunig et al., SMMR 24:27 (2015)), in SD of the
feature; batch_ratio the mean square of batch over that of error. Where batches do not differ it follows F: its median,
`expected_ratio`, is below 1, with two batches about a half; `upper_ratio` is reached by chance in one of 20 tables.

Where the method can correct scans it was not fitted on, it is fitted on the other subjects alone: then this evidence is
held-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, HarmonizationRefused, IntArray
from harmonization_app.algorithms.design import as_numbers, batch_codes
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.heldout import relaxed_for_parts
from harmonization_app.diagnostics.noise_floor import upper_share
from harmonization_app.diagnostics.scope import median
from harmonization_app.diagnostics.subjects import Subjects, repeated_subjects

WITHIN = 0.25
FEWEST_SUBJECTS = 5
TAKES_ALL_AS_TRAVELLING = frozenset({"travelling-subject"})
FEWEST_OF_PAIR = 3
REPEATABILITY = 1.96 * np.sqrt(2.0)
LISTED_PAIRS = 50
IN_SAMPLE = "in-sample: the method was fitted on these very scans"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Medians over features of the agreement of scans of one subject in several batches."""

    icc: float | None
    within_subject_cv_percent: float | None
    repeatability_sd: float | None
    batch_ratio: float | None


@dataclass(frozen=True, slots=True)
class BatchPair:
    """Two batches that share subjects: mean difference first less second and half width of the limits of agreement.

    Medians over features of the absolute bias and of the limits, in SD of the feature before (Bland and Altman).
    """

    first: str
    second: str
    subjects: int
    bias_before: float
    bias_after: float
    limits_before: float
    limits_after: float


@dataclass(frozen=True, slots=True)
class TravellingSubjects:
    """The agreement before and after, or why there is none; `held_out` tells whether the scans were fitted on."""

    evaluable: bool
    reason: str
    subjects: int = 0
    scans: int = 0
    batches: int = 0
    within: float | None = None
    held_out: bool = False
    note: str = ""
    before: Agreement | None = None
    after: Agreement | None = None
    expected_ratio: float | None = None
    upper_ratio: float | None = None
    pairs: tuple[BatchPair, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_travelling(
    algorithm: Algorithm, dataset: Dataset, specification: Specification, after: FloatArray
) -> TravellingSubjects | None:
    """Return the agreement; None where no subject was scanned in several batches close in time.

    `after` are the harmonized values of `dataset`, used where the method cannot be fitted without these subjects.
    """
    subjects = repeated_subjects(dataset, specification)
    if subjects is None:
        return None
    batches, codes = batch_codes(dataset, specification)
    within = WITHIN if specification.time in dataset.covariates else None
    rows = _travelling_rows(dataset, specification, subjects, codes)
    people = len(np.unique(subjects.codes[rows]))
    if not rows.size:
        return None
    counts = (people, len(rows), len(np.unique(codes[rows])), within)
    if within is None and algorithm.id not in TAKES_ALL_AS_TRAVELLING:
        reason = "The plan names no time: whether a subject's scans of several batches are close in time is not known."
        return TravellingSubjects(False, reason, *counts)
    if people < FEWEST_SUBJECTS:
        reason = f"Fewer than {FEWEST_SUBJECTS} subjects were scanned in several batches close in time."
        return TravellingSubjects(False, reason, *counts)
    corrected, note = _held_out_values(algorithm, dataset, specification, subjects, rows)
    held_out = corrected is not None
    values = after[rows] if corrected is None else corrected
    before = dataset.values[rows]
    usable = np.isfinite(before).all(axis=0) & np.isfinite(values).all(axis=0) & (np.ptp(before, axis=0) > 0)
    if not usable.any():
        return TravellingSubjects(False, "No feature is complete and varies in these scans.", *counts)
    before, values = before[:, usable], values[:, usable]
    spread = np.nanstd(dataset.values[:, usable], axis=0)
    own = np.unique(subjects.codes[rows], return_inverse=True)[1]
    first, second = (_agreement(part, own, codes[rows], spread) for part in (before, values))
    if first is None or second is None:
        return TravellingSubjects(False, "Too few scans for as many subjects and batches.", *counts)
    pairs = _pairs(before / spread, values / spread, own, codes[rows], batches)
    yardstick = _ratios_of_chance(before, own, codes[rows], specification.seed)
    return TravellingSubjects(True, "", *counts, held_out, note, first, second, *yardstick, pairs)


def _travelling_rows(
    dataset: Dataset, specification: Specification, subjects: Subjects, codes: IntArray
) -> IntArray:
    """Return the rows of each subject's first run of scans close in time that spans several batches."""
    time: FloatArray = np.zeros(len(codes))
    if specification.time in dataset.covariates:
        time = as_numbers(dataset.covariates[str(specification.time)])
    chosen: list[int] = []
    order, starts = subjects.runs()
    for rows in np.split(order, starts[1:]):
        if len(np.unique(codes[rows])) < 2:
            continue
        for start in np.sort(time[rows][np.isfinite(time[rows])]):
            close = rows[(time[rows] >= start) & (time[rows] <= start + WITHIN)]
            if len(np.unique(codes[close])) > 1:
                chosen += close.tolist()
                break
    return np.sort(np.array(chosen, dtype=np.int64))


def _held_out_values(
    algorithm: Algorithm, dataset: Dataset, specification: Specification, subjects: Subjects, rows: IntArray
) -> tuple[FloatArray | None, str]:
    """Return the scans `rows` corrected by a model of the other subjects, None where that cannot be; and a note."""
    if not algorithm.capabilities.train_apply:
        return None, f"{IN_SAMPLE}; {algorithm.title} cannot correct others."
    others = np.flatnonzero(~np.isin(subjects.codes, subjects.codes[rows]))
    try:
        model = algorithm.fit(dataset.select(others), relaxed_for_parts(specification))
        corrected = np.asarray(algorithm.apply(model, dataset.select(rows)).values)
    except (HarmonizationRefused, ValueError) as refusal:
        reason = refusal.detail if isinstance(refusal, HarmonizationRefused) else "too few scans are left"
        return None, f"{IN_SAMPLE}; without these subjects it cannot be fitted: {reason}"
    return corrected, "held-out: the method was fitted on the other subjects alone"


def _agreement(
    values: FloatArray, subjects: IntArray, codes: IntArray, spread: FloatArray
) -> Agreement | None:
    """Return the agreement of complete `values` [scans x features]; None with no degrees of freedom for error."""
    codes = np.unique(codes, return_inverse=True)[1]
    people, batches = np.eye(int(subjects.max()) + 1)[subjects], np.eye(int(codes.max()) + 1)[codes]
    centred = values - values.mean(axis=0)
    both = _left(np.hstack([people, batches]), centred)
    of_people, of_batches = _left(people, centred), _left(batches, centred)
    free = both[1]
    if free < 1 or of_people[1] == free or of_batches[1] == free:
        return None
    error = both[0] / free
    batch = (of_people[0] - both[0]) / (of_people[1] - free)
    person = (of_batches[0] - both[0]) / (of_batches[1] - free)
    between_people = np.maximum(person - error, 0.0) / _mean_size(subjects, codes)
    between_batches = np.maximum(batch - error, 0.0) / _mean_size(codes, subjects)
    within = of_people[0] / of_people[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        icc = between_people / (between_people + between_batches + error)
        variation = 100 * np.sqrt(within) / np.abs(values.mean(axis=0))
        ratio = batch / error
    return Agreement(
        median(icc), median(variation), median(REPEATABILITY * np.sqrt(within) / spread), median(ratio)
    )


def _ratios_of_chance(
    values: FloatArray, subjects: IntArray, codes: IntArray, seed: int
) -> tuple[float, float]:
    """Return the median of batch_ratio over features whose batches do not differ, that of F, and its limit by chance.

    The limit is reached in one of 20 tables at most, allowing for features that go together.
    """
    people = np.eye(int(subjects.max()) + 1)[subjects]
    full, reduced = _basis(np.hstack([people, np.eye(int(codes.max()) + 1)[codes]])), _basis(people)
    batches, free = full.shape[1] - reduced.shape[1], len(values) - full.shape[1]
    share = upper_share(full, reduced, values, subjects, np.random.default_rng(seed))
    return float(stats.f.median(batches, free)), share / (1 - share) * free / batches


def _left(design: FloatArray, values: FloatArray) -> tuple[FloatArray, int]:
    """Return the residual squares by feature and their degrees of freedom."""
    basis = _basis(design)
    residuals = values - basis @ (basis.T @ values)
    return np.einsum("sf,sf->f", residuals, residuals), len(values) - basis.shape[1]


def _basis(design: FloatArray) -> FloatArray:
    """Return an orthonormal basis of the columns."""
    left, singular, _ = np.linalg.svd(design, full_matrices=False)
    return np.asarray(left[:, singular > 1e-9 * singular[0]])


def _mean_size(groups: IntArray, others: IntArray) -> float:
    """Return the expected weight of a group's variance in its mean square, given the other factor (type II)."""
    indicators = np.eye(int(groups.max()) + 1)[groups]
    left, singular, _ = np.linalg.svd(np.eye(int(others.max()) + 1)[others], full_matrices=False)
    basis = left[:, singular > 1e-9]
    within = indicators - basis @ (basis.T @ indicators)
    rank = int(np.linalg.matrix_rank(within))
    return float((within**2).sum() / max(rank, 1))


def _pairs(
    before: FloatArray, after: FloatArray, subjects: IntArray, codes: IntArray, batches: Sequence[str]
) -> tuple[BatchPair, ...]:
    """Return the pairs of batches that share at least three of the subjects, those that share most first."""
    found = []
    for first, second in combinations(np.unique(codes).tolist(), 2):
        shared = np.intersect1d(subjects[codes == first], subjects[codes == second])
        if len(shared) < FEWEST_OF_PAIR:
            continue
        figures = []
        for values in (before, after):
            means = [
                np.stack([values[(codes == code) & (subjects == person)].mean(axis=0) for person in shared])
                for code in (first, second)
            ]
            gap = means[0] - means[1]
            figures.append((np.abs(gap.mean(axis=0)), 1.96 * gap.std(axis=0, ddof=1)))
        (bias, limits), (bias_after, limits_after) = figures
        cells = (float(np.median(part)) for part in (bias, bias_after, limits, limits_after))
        found.append(BatchPair(batches[first], batches[second], len(shared), *cells))
    return tuple(sorted(found, key=lambda pair: -pair.subjects)[:LISTED_PAIRS])
