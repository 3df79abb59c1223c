"""Differences of distribution between groups of scans, feature by feature: the k-sample Anderson-Darling test.

Source: Scholz, Stephens, J Am Stat Assoc 82:918 (1987), equation 7 (midranks, so ties count half) and the critical
values of its table 1 with those for 0.5 % and 0.1 % that SciPy adds. All features are tested at once; equal to
scipy.stats.anderson_ksamp within 1e-10.
"""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray

LEVELS = np.array([0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001])
# Critical value for m = groups - 1: B0 + B1 / sqrt(m) + B2 / m.
B0 = np.array([0.675, 1.281, 1.645, 1.96, 2.326, 2.573, 3.085])
B1 = np.array([-0.245, 0.25, 0.678, 1.149, 1.822, 2.364, 3.615])
B2 = np.array([-0.105, -0.305, -0.362, -0.391, -0.396, -0.345, -0.154])
# The variance of the statistic has (N - 3) in its denominator.
LEAST_SCANS = 4


def anderson_darling(values: FloatArray, codes: IntArray) -> FloatArray:
    """Return the p value of each feature of `values` [scans x features] over the groups `codes`, 0.001 to 0.25.

    Missing cells are left out. A feature with one value, with fewer than two groups or than four scans has no
    difference to show: 1.
    """
    probabilities = np.ones(values.shape[1])
    holed = np.isnan(values).any(axis=0)
    if not holed.all():
        probabilities[~holed] = _complete(values[:, ~holed], codes)
    for column in np.flatnonzero(holed):
        seen = ~np.isnan(values[:, column])
        probabilities[column] = _complete(values[seen, column][:, None], codes[seen])[0]
    return probabilities


def _complete(values: FloatArray, codes: IntArray) -> FloatArray:
    """Return the p values of features without missing cells."""
    groups, own = np.unique(codes, return_inverse=True)
    sizes = np.bincount(own)
    varying = np.ptp(values, axis=0) > 0 if len(values) else np.zeros(values.shape[1], dtype=bool)
    probabilities = np.ones(values.shape[1])
    if len(groups) < 2 or len(values) < LEAST_SCANS or not varying.any():
        return probabilities
    statistic = _statistic(values[:, varying], own, sizes)
    deviation = np.sqrt(_variance(sizes))
    probabilities[varying] = _probability((statistic - (len(groups) - 1)) / deviation, len(groups) - 1)
    return probabilities


def _statistic(values: FloatArray, codes: IntArray, sizes: IntArray) -> FloatArray:
    """Return A2akN of each feature."""
    total = len(values)
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    first, last = _tie_limits(ranked)
    length = last - first
    below = first + length / 2
    weight = total * below - below**2 - total * length / 4
    groups = codes[order]
    statistic = np.zeros(values.shape[1])
    for group, size in enumerate(sizes):
        counted = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(groups == group, axis=0)])
        upto, before = (np.take_along_axis(counted, limit, axis=0) for limit in (last, first))
        statistic += ((total * (upto + before) / 2 - below * size) ** 2 / weight).sum(axis=0) / size
    return np.asarray(statistic * (total - 1) / total**2)


def _tie_limits(ranked: FloatArray) -> tuple[IntArray, IntArray]:
    """Return, for each place in the sorted columns of `ranked` [places x columns], how many values of its column are
    smaller and how many not greater.
    """
    places = np.broadcast_to(np.arange(len(ranked))[:, None], ranked.shape)
    edge = np.ones((1, ranked.shape[1]), dtype=bool)
    new = np.vstack([edge, ranked[1:] != ranked[:-1]])
    first = np.maximum.accumulate(np.where(new, places, 0), axis=0)
    ends = np.vstack([new[1:], edge])
    last = np.minimum.accumulate(np.where(ends, places + 1, len(ranked))[::-1], axis=0)[::-1]
    return first.astype(np.int64), last.astype(np.int64)


def _variance(sizes: IntArray) -> float:
    """Return the variance of the statistic where the groups do not differ."""
    k, total = len(sizes), int(sizes.sum())
    inverse = float((1 / sizes).sum())
    partial = np.cumsum(1 / np.arange(total - 1, 1, -1))
    h = float(partial[-1]) + 1
    g = float((partial / np.arange(2, total)).sum())
    a = (4 * g - 6) * (k - 1) + (10 - 6 * g) * inverse
    b = (2 * g - 4) * k**2 + 8 * h * k + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * k**2 + (4 * h - 4 * g + 6) * k + (2 * h - 6) * inverse + 4 * h
    d = (2 * h + 6) * k**2 - 4 * h * k
    return (a * total**3 + b * total**2 + c * total + d) / ((total - 1) * (total - 2) * (total - 3))


def _probability(standard: FloatArray, m: int) -> FloatArray:
    """Return p by a parabola of log p through the critical values, cut where the table ends."""
    critical = B0 + B1 / np.sqrt(m) + B2 / m
    fitted = np.exp(np.polyval(np.polyfit(critical, np.log(LEVELS), 2), standard))
    fitted = np.where(standard < critical.min(), LEVELS.max(), fitted)
    return np.asarray(np.where(standard > critical.max(), LEVELS.min(), fitted))
