"""Kruskal-Wallis and Brown-Forsythe tests of many features at once, with their effect sizes.

Sources: Kruskal and Wallis, JASA 47:583 (1952); Brown and Forsythe, JASA 69:364 (1974); epsilon squared: Tomczak and
Tomczak, Trends Sport Sci 1:19 (2014).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import FloatArray, IntArray


def one_way(values: FloatArray, codes: IntArray, batches: int) -> tuple[FloatArray, FloatArray]:
    """Return the share of squares between batches and the p of the one-way F, over observed cells."""
    indicators = np.eye(batches)[codes]
    if np.isfinite(values.sum()):
        filled = values - values.mean(axis=0)
        counts = np.repeat(indicators.sum(axis=0)[:, None], values.shape[1], axis=1)
    else:
        seen = (~np.isnan(values)).astype(np.float64)
        filled = np.where(seen > 0, values - _observed_mean(values), 0.0)
        counts = indicators.T @ seen
    sums = indicators.T @ filled
    between = (sums**2 / np.where(counts > 0, counts, 1.0)).sum(axis=0)
    total = np.einsum("sf,sf->f", filled, filled)
    groups, scans = (counts > 0).sum(axis=0), counts.sum(axis=0)
    f = between / (groups - 1) / ((total - between) / (scans - groups))
    return between / total, np.asarray(stats.f.sf(f, groups - 1, scans - groups))


def brown_forsythe(values: FloatArray, codes: IntArray, batches: int) -> tuple[FloatArray, FloatArray]:
    """Return eta squared and p of the one-way F on absolute deviations from the batches' medians."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return one_way(np.abs(values - _medians(values, codes, batches)[codes]), codes, batches)


def kruskal(values: FloatArray, codes: IntArray, batches: int) -> tuple[FloatArray, FloatArray]:
    """Return epsilon squared and p of the Kruskal-Wallis test with correction for ties."""
    size, p = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    missing = np.isnan(values)
    complete = np.flatnonzero(~missing.any(axis=0))
    if complete.size:
        size[complete], p[complete] = _kruskal_complete(values[:, complete], codes, batches)
    for column in np.flatnonzero(missing.any(axis=0)):
        seen = ~missing[:, column]
        if len(np.unique(codes[seen])) > 1:
            own = np.unique(codes[seen], return_inverse=True)[1]
            part = _kruskal_complete(values[seen, column : column + 1], own, int(own.max()) + 1)
            size[column], p[column] = part[0][0], part[1][0]
    return size, p


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


def _kruskal_complete(values: FloatArray, codes: IntArray, batches: int) -> tuple[FloatArray, FloatArray]:
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
    return statistic / (scans - 1), np.asarray(stats.chi2.sf(statistic, batches - 1))
