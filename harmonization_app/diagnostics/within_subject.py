"""What happened to the changes within subjects who were scanned more than once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.design import as_numbers, level_texts, merged_labels
from harmonization_app.algorithms.kernel import BoolArray
from harmonization_app.algorithms.specification import Specification

FEWEST_PAIRS = 5
# Successive scans closer than this part of the median gap say nothing of a change per unit of time.
SHORTEST_GAP = 0.1


@dataclass(frozen=True, slots=True)
class BatchChange:
    """The changes of subjects who stayed in one batch: medians over features of the mean change, before and after.

    In SD of the feature before, per unit of time where the plan names it. Batches whose subjects are alike should
    change alike.
    """

    batch: str
    pairs: int
    change_before_sd: float
    change_after_sd: float
    rank_order: float | None


@dataclass(frozen=True, slots=True)
class WithinSubject:
    """Changes between a subject's successive scans, before and after; medians over features.

    `rank_order` is Spearman's correlation of the changes before with those after, in subjects who stayed in their
    batch. `excess_before` and `excess_after` are the mean squared change of those who changed the batch over that of
    those who stayed: 1 means a change of batch is not seen.
    """

    evaluable: bool
    reason: str
    subjects: int = 0
    pairs_same_batch: int = 0
    pairs_other_batch: int = 0
    rank_order: float | None = None
    excess_before: float | None = None
    excess_after: float | None = None
    time: str | None = None
    by_batch: tuple[BatchChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_within_subject(
    dataset: Dataset, specification: Specification, after: FloatArray
) -> WithinSubject | None:
    """Return the changes; None where the plan names no subject. Scans follow the time, where the plan names it."""
    if specification.subject is None:
        return None
    first, second, subjects = _pairs(dataset, specification)
    if subjects == 0:
        return WithinSubject(False, "The table lacks the subjects, or none was scanned twice.")
    labels = np.array([str(label) for label in merged_labels(dataset, specification)])
    same = labels[first] == labels[second]
    counts = (subjects, int(same.sum()), int((~same).sum()))
    if same.sum() < FEWEST_PAIRS:
        reason = f"Fewer than {FEWEST_PAIRS} pairs of successive scans are in one batch."
        return WithinSubject(False, reason, *counts)
    before_change, after_change = (values[second] - values[first] for values in (dataset.values, after))
    usable = np.isfinite(before_change).all(axis=0) & (np.ptp(before_change[same], axis=0) > 0)
    usable &= np.isfinite(after_change).all(axis=0) & (np.ptp(after_change[same], axis=0) > 0)
    if not usable.any():
        return WithinSubject(False, "No feature is complete and changes within subjects.", *counts)
    ranks = [_ranked(change[same][:, usable]) for change in (before_change, after_change)]
    order = float(np.median((ranks[0] * ranks[1]).sum(axis=0)))
    enough = (~same).sum() >= FEWEST_PAIRS
    excess = [
        _excess(change[:, usable], same) if enough else None for change in (before_change, after_change)
    ]
    spread = np.nanstd(dataset.values[:, usable], axis=0)
    gaps = _gaps(dataset, specification, first, second)
    whole = np.full(len(first), 1.0) if gaps is None else gaps
    kept = same & (whole > SHORTEST_GAP * np.median(np.abs(whole)))
    before_rate, after_rate = (
        change[kept][:, usable] / spread / whole[kept, None] for change in (before_change, after_change)
    )
    time = None if gaps is None else specification.time
    by_batch = _by_batch(before_rate, after_rate, labels[first][kept])
    return WithinSubject(True, "", *counts, order, excess[0], excess[1], time, by_batch)


def _gaps(
    dataset: Dataset, specification: Specification, first: IntArray, second: IntArray
) -> FloatArray | None:
    """Return the time between successive scans; None where the plan names none or a time is missing."""
    if specification.time not in dataset.covariates:
        return None
    time = as_numbers(dataset.covariates[str(specification.time)])
    return None if np.isnan(time).any() else np.asarray(time[second] - time[first])


def _by_batch(before: FloatArray, after: FloatArray, labels: npt.NDArray[np.str_]) -> tuple[BatchChange, ...]:
    found = []
    for batch in np.unique(labels):
        own = labels == batch
        pairs = int(own.sum())
        order = None
        if pairs >= FEWEST_PAIRS and (np.ptp(before[own], axis=0) > 0).all():
            products = (_ranked(before[own]) * _ranked(after[own])).sum(axis=0)
            known = products[np.isfinite(products)]
            order = float(np.median(known)) if known.size else None
        means = [float(np.median(change[own].mean(axis=0))) for change in (before, after)]
        found.append(BatchChange(str(batch), pairs, means[0], means[1], order))
    return tuple(found)


def _pairs(dataset: Dataset, specification: Specification) -> tuple[IntArray, IntArray, int]:
    """Return the rows of successive scans of the same subject, and how many subjects have any."""
    nothing = np.empty(0, dtype=np.int64)
    if specification.subject not in dataset.covariates:
        return nothing, nothing, 0
    texts = level_texts(dataset.covariates[str(specification.subject)])
    time = np.arange(len(texts), dtype=np.float64)
    if specification.time in dataset.covariates:
        read = as_numbers(dataset.covariates[str(specification.time)])
        time = time if np.isnan(read).any() else read
    names = np.array([text or "" for text in texts])
    order = np.lexsort((time, names))
    ordered = names[order]
    follows = (ordered[1:] == ordered[:-1]) & (ordered[1:] != "")
    return order[:-1][follows], order[1:][follows], len(set(ordered[1:][follows].tolist()))


def _ranked(changes: FloatArray) -> FloatArray:
    """Return ranks by column, centred and of length one, so that their products add up to Spearman's correlation."""
    ranks = stats.rankdata(changes, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(ranks / np.sqrt((ranks**2).sum(axis=0)))


def _excess(changes: FloatArray, same: BoolArray) -> float:
    squares = changes**2
    return float(np.median(squares[~same].mean(axis=0) / squares[same].mean(axis=0)))
