"""Tests of batch effects per feature: partial F given the covariates, Kruskal-Wallis, Brown-Forsythe, with FDR.

Sources: Kruskal and Wallis, JASA 47:583 (1952); Brown and Forsythe, JASA 69:364 (1974); Benjamini and Hochberg,
JRSS B 57:289 (1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.algorithms.kernel import blocks
from harmonization_app.diagnostics.regression import regress

SIGNIFICANCE = 0.05
TEST_CELLS = 1 << 21
FIGURES = (
    "partial_f",
    "p",
    "q",
    "partial_eta_squared",
    "variance_explained",
    "kruskal_p",
    "kruskal_q",
    "levene_p",
    "levene_q",
)


@dataclass(frozen=True, slots=True)
class BatchTest:
    """Batch effect on one feature; every figure is None where it cannot be computed (a constant feature).

    `partial_f` tests batch in a linear model with the covariates; `partial_eta_squared` is its effect size;
    `variance_explained` the share of all variance between batches, covariates aside; `q` are FDR-adjusted p.
    Kruskal-Wallis takes residuals given the covariates, Brown-Forsythe residuals given batch and covariates.
    """

    feature: str
    partial_f: float | None
    p: float | None
    q: float | None
    partial_eta_squared: float | None
    variance_explained: float | None
    kruskal_p: float | None
    kruskal_q: float | None
    levene_p: float | None
    levene_q: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """Over all features: how many tested, how many with q below 0.05 (None where not tested), median effect sizes."""

    tested: int
    mean_effect: int | None
    rank_effect: int | None
    scale_effect: int | None
    median_partial_eta_squared: float | None
    median_variance_explained: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_batch_effects(
    values: FloatArray,
    codes: IntArray,
    covariates: FloatArray,
    features: Sequence[str],
    *,
    ranks_and_scales: bool = True,
) -> tuple[BatchTest, ...]:
    """Return the tests of each column of `values` [scans x features]; `codes` number the batches from 0.

    Without `ranks_and_scales` only the linear model is computed, which is much faster.
    """
    parts = [
        _block(values[:, block], codes, covariates, ranks_and_scales)
        for block in blocks(len(features), len(values), TEST_CELLS)
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, p in (("q", "p"), ("kruskal_q", "kruskal_p"), ("levene_q", "levene_p")):
        columns[name] = _adjusted(columns[p])
    return tuple(
        BatchTest(feature, **{name: _number(columns[name][index]) for name in FIGURES})
        for index, feature in enumerate(features)
    )


def summarize(tests: Sequence[BatchTest]) -> BatchSummary:
    """Return the counts and medians over features."""
    sizes = [test.partial_eta_squared for test in tests if test.partial_eta_squared is not None]
    shares = [test.variance_explained for test in tests if test.variance_explained is not None]
    return BatchSummary(
        tested=len(sizes),
        mean_effect=_significant([test.q for test in tests]),
        rank_effect=_significant([test.kruskal_q for test in tests]),
        scale_effect=_significant([test.levene_q for test in tests]),
        median_partial_eta_squared=float(np.median(sizes)) if sizes else None,
        median_variance_explained=float(np.median(shares)) if shares else None,
    )


def _significant(adjusted: list[float | None]) -> int | None:
    known = [q for q in adjusted if q is not None]
    return sum(q < SIGNIFICANCE for q in known) if known else None


def _block(
    values: FloatArray, codes: IntArray, covariates: FloatArray, ranks_and_scales: bool
) -> dict[str, FloatArray]:
    batches = int(codes.max()) + 1
    indicators = np.eye(batches)[codes]
    centred = covariates - covariates.mean(axis=0)
    design = np.hstack([indicators, centred])
    without = np.hstack([np.ones((len(values), 1)), centred])
    full, reduced = regress(design, values), regress(without, values)
    constant = np.nanmax(values, axis=0) == np.nanmin(values, axis=0)
    between = reduced.residual_squares - full.residual_squares
    with np.errstate(invalid="ignore", divide="ignore"):
        f = between / (batches - 1) / (full.residual_squares / full.degrees)
        p = stats.f.sf(f, batches - 1, full.degrees)
        partial = between / reduced.residual_squares
        share, _ = _one_way(values, codes, batches)
    result = {
        "partial_f": f,
        "p": p,
        "partial_eta_squared": partial,
        "variance_explained": share,
        "kruskal_p": np.full(values.shape[1], np.nan),
        "levene_p": np.full(values.shape[1], np.nan),
    }
    if ranks_and_scales:
        result["kruskal_p"] = _kruskal(values - without @ reduced.coefficients, codes, batches)
        result["levene_p"] = _brown_forsythe(values - design @ full.coefficients, codes, batches)
    return {name: np.where(constant, np.nan, column) for name, column in result.items()}


def _one_way(values: FloatArray, codes: IntArray, batches: int) -> tuple[FloatArray, FloatArray]:
    """Return the share of squares between batches and the p of the one-way F, over observed cells."""
    seen = (~np.isnan(values)).astype(np.float64)
    centre = _observed_mean(values)
    filled = np.where(seen > 0, values - centre, 0.0)
    indicators = np.eye(batches)[codes]
    counts, sums = indicators.T @ seen, indicators.T @ filled
    between = (sums**2 / np.where(counts > 0, counts, 1.0)).sum(axis=0)
    total = (filled**2).sum(axis=0)
    groups, scans = (counts > 0).sum(axis=0), counts.sum(axis=0)
    f = between / (groups - 1) / ((total - between) / (scans - groups))
    return between / total, np.asarray(stats.f.sf(f, groups - 1, scans - groups))


def _brown_forsythe(values: FloatArray, codes: IntArray, batches: int) -> FloatArray:
    """Return the p of the one-way F on absolute deviations from the batches' medians."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _one_way(np.abs(values - _medians(values, codes, batches)[codes]), codes, batches)[1]


def _observed_mean(values: FloatArray) -> FloatArray:
    counts = (~np.isnan(values)).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.where(counts > 0, counts, 1))


def _medians(values: FloatArray, codes: IntArray, batches: int) -> FloatArray:
    medians = np.full((batches, values.shape[1]), np.nan)
    incomplete = np.flatnonzero(np.isnan(values).any(axis=0))
    for batch in range(batches):
        own = values[codes == batch]
        medians[batch] = np.median(own, axis=0)
        for column in incomplete:
            observed = own[~np.isnan(own[:, column]), column]
            medians[batch, column] = np.median(observed) if observed.size else np.nan
    return medians


def _kruskal(values: FloatArray, codes: IntArray, batches: int) -> FloatArray:
    """Return the p of the Kruskal-Wallis test with correction for ties, features of one missing pattern at once."""
    p = np.full(values.shape[1], np.nan)
    missing = np.isnan(values)
    complete = np.flatnonzero(~missing.any(axis=0))
    if complete.size:
        p[complete] = _kruskal_complete(values[:, complete], codes, batches)
    for column in np.flatnonzero(missing.any(axis=0)):
        seen = ~missing[:, column]
        if len(np.unique(codes[seen])) > 1:
            own = np.unique(codes[seen], return_inverse=True)[1]
            p[column] = _kruskal_complete(values[seen, column : column + 1], own, int(own.max()) + 1)[0]
    return p


def _kruskal_complete(values: FloatArray, codes: IntArray, batches: int) -> FloatArray:
    scans = len(values)
    order = np.argsort(values, axis=0)
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, np.arange(1.0, scans + 1.0)[:, None], axis=0)
    correction = np.ones(values.shape[1])
    ordered = np.take_along_axis(values, order, axis=0)
    tied = np.flatnonzero((ordered[1:] == ordered[:-1]).any(axis=0))
    if tied.size:
        own = values[:, tied]
        ranks[:, tied] = stats.rankdata(own, axis=0)
        ties = stats.rankdata(own, "max", axis=0) - stats.rankdata(own, "min", axis=0) + 1.0
        correction[tied] = 1.0 - (ties**2 - 1.0).sum(axis=0) / (scans**3 - scans)
    counts = np.bincount(codes, minlength=batches)
    sums = np.eye(batches)[codes].T @ (ranks - (scans + 1) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = 12.0 / (scans * (scans + 1)) * (sums**2 / counts[:, None]).sum(axis=0) / correction
    return np.asarray(stats.chi2.sf(statistic, batches - 1))


def _adjusted(p: FloatArray) -> FloatArray:
    known = np.isfinite(p)
    q = np.full_like(p, np.nan)
    if known.any():
        q[known] = stats.false_discovery_control(np.clip(p[known], 0.0, 1.0))
    return q


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
