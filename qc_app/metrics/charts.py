"""Control charts on standardized values, and the prediction limit for a young baseline.

All charts take z = (value - baseline mean)/baseline sd as a float array (n,) in order of time and return
arrays (n,). Sources: Montgomery, Introduction to Statistical Quality Control; Westgard et al. 1981, Clin
Chem 27:493; Roberts 1959, Technometrics 1:239; Page 1954, Biometrika 41:100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SHEWHART_LIMIT = 3.0
EWMA_WEIGHT = 0.2
EWMA_LIMIT = 2.962
CUSUM_SLACK = 0.5
CUSUM_LIMIT = 5.0
ONE_SIDED_THREE_SIGMA = 0.99865

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ewma:
    """Exponentially weighted mean, its limit at each point, and where the mean lies beyond it."""

    statistic: Values
    limit: Values
    signals: Flags


@dataclass(frozen=True, eq=False)
class Cusum:
    """Upper and lower cumulative sums (both >= 0) and where either exceeds its limit."""

    upper: Values
    lower: Values
    signals: Flags


def shewhart(z: Values, limit: float = SHEWHART_LIMIT) -> Flags:
    """Return where |z| exceeds the limit (rule 1_3s)."""
    return np.asarray(np.abs(z) > limit)


def ewma(z: Values, weight: float = EWMA_WEIGHT, limit: float = EWMA_LIMIT, *, exact: bool = True) -> Ewma:
    """Return the EWMA chart, started at the baseline mean; `exact` limits widen with time, else asymptotic."""
    statistic = np.empty(len(z))
    level = 0.0
    for place, value in enumerate(z):
        level += weight * (float(value) - level)
        statistic[place] = level
    variance = np.full(len(z), weight / (2.0 - weight))
    if exact:
        variance *= 1.0 - (1.0 - weight) ** (2.0 * np.arange(1, len(z) + 1))
    bound = limit * np.sqrt(variance)
    return Ewma(statistic, bound, np.abs(statistic) > bound)


def cusum(z: Values, slack: float = CUSUM_SLACK, limit: float = CUSUM_LIMIT) -> Cusum:
    """Return the two-sided tabular CUSUM, started at zero and not reset by a signal."""
    upper, lower = np.empty(len(z)), np.empty(len(z))
    high = low = 0.0
    for place, value in enumerate(z):
        high = max(0.0, high + float(value) - slack)
        low = max(0.0, low - float(value) - slack)
        upper[place], lower[place] = high, low
    return Cusum(upper, lower, (upper > limit) | (lower > limit))


def westgard(z: Values) -> dict[str, Flags]:
    """Return where the multi-value rules 2_2s, R_4s, 4_1s and 10_x are met, each at the last value of its run."""
    previous = np.concatenate([[0.0], z[:-1]])
    range_rule = ((z > 2) & (previous < -2)) | ((z < -2) & (previous > 2))
    return {
        "2_2s": _beyond(z, 2.0, 2),
        "R_4s": range_rule,
        "4_1s": _beyond(z, 1.0, 4),
        "10_x": _beyond(z, 0.0, 10),
    }


def _beyond(z: Values, bound: float, length: int) -> Flags:
    """Return where the last `length` values all lie beyond the bound on the same side."""
    return _run(z > bound, length) | _run(z < -bound, length)


def _run(flags: Flags, length: int) -> Flags:
    """Return where `flags` has held for the last `length` values."""
    result = np.zeros(len(flags), dtype=bool)
    count = 0
    for place, flag in enumerate(flags):
        count = count + 1 if flag else 0
        result[place] = count >= length
    return result


@lru_cache(maxsize=256)
def prediction_limit(count: int) -> float:
    """Return how many baseline sd the next value may lie from the mean of `count` >= 2 values.

    t(0.99865, n-1) sqrt(1 + 1/n): the three-sigma limit made honest for a mean and sd estimated from few
    scans (Hahn and Meeker, Statistical Intervals).
    """
    if count < 2:
        raise ValueError("A prediction limit needs at least two values.")
    return float(stats.t.ppf(ONE_SIDED_THREE_SIGMA, count - 1)) * math.sqrt(1.0 + 1.0 / count)


def robust_sd_from_differences(values: Values) -> float:
    """Return the sd estimated from successive differences, 1.4826 MAD/sqrt(2), which a step hardly moves."""
    differences = np.diff(values)
    if differences.size == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(differences - np.median(differences))) / math.sqrt(2.0))


def level_breaks(values: Values, min_size: int = 5, penalty_factor: float = 3.0) -> tuple[int, ...]:
    """Return the first index of every new level, by optimal partitioning with squared error.

    The cost of a partition is the squared error around segment means, of values divided by the robust sd of
    their differences, plus penalty_factor ln(n) a break (Killick et al. 2012, JASA 107:1590; the linear-
    kernel criterion of Arlot et al. 2019, JMLR 20:162). Empty when the series is shorter than two segments
    or does not vary.
    """
    count, scale = len(values), robust_sd_from_differences(values)
    if count < 2 * min_size or scale <= 0:
        return ()
    x = (values - values.mean()) / scale
    sums, squares = np.concatenate([[0.0], np.cumsum(x)]), np.concatenate([[0.0], np.cumsum(x * x)])
    penalty = penalty_factor * math.log(count)
    best = np.full(count + 1, np.inf)
    best[0] = -penalty
    origin = np.zeros(count + 1, dtype=np.intp)
    for end in range(min_size, count + 1):
        starts = np.arange(0, end - min_size + 1)
        error = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / (end - starts)
        total = best[starts] + error + penalty
        origin[end] = int(np.argmin(total))
        best[end] = total[origin[end]]
    breaks: list[int] = []
    end = int(origin[count])
    while end > 0:
        breaks.append(end)
        end = int(origin[end])
    return tuple(reversed(breaks))
