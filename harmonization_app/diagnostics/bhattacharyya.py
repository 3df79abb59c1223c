"""Bhattacharyya distance of each batch to the reference batch, or to the other batches pooled.

Two normal distributions per feature, after the covariates' effects (estimated beside batch) are taken out, as in
Jodoin et al., Sci Rep 15:41508 (2025). Between batches that do not differ it is about an eighth of 1/n + 1/m times the
sum of two chi squared, that of the means inflated as far as the covariates' effects are uncertain where their means
lie apart; `expected` is the median of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.diagnostics.regression import regress

FEWEST_SCANS = 2


def bhattacharyya(
    values: FloatArray,
    codes: IntArray,
    covariates: FloatArray,
    batches: Sequence[str],
    reference: str | None = None,
) -> dict[str, Any]:
    """Return {against, by_batch, median, expected}: medians over the features of `values` [scans x features].

    `values` are complete and vary. None where a batch has fewer than two scans or no spread.
    """
    by_batch: dict[str, float | None] = {batch: None for batch in batches if batch != reference}
    large = np.flatnonzero(np.bincount(codes, minlength=len(batches)) >= FEWEST_SCANS)
    kept = np.isin(codes, large)
    names = [batches[int(code)] for code in large]
    indicators = (codes[kept, None] == large).astype(np.float64)
    centred = covariates[kept] - covariates[kept].mean(axis=0)
    fit = regress(np.hstack([indicators, centred]), values[kept])
    adjusted = values[kept] - centred @ fit.coefficients[len(names) :]
    adjusted = adjusted - adjusted.mean(axis=0)
    counts = indicators.sum(axis=0)
    sums, squares = indicators.T @ adjusted, indicators.T @ adjusted**2
    expected = []
    for code, batch in enumerate(names):
        other = (
            [names.index(reference)] if reference in names else [i for i in range(len(names)) if i != code]
        )
        if batch == reference or not other:
            continue
        own = _moments(counts[code], sums[code], squares[code])
        rest = _moments(counts[other].sum(), sums[other].sum(axis=0), squares[other].sum(axis=0))
        distances = _distance(*own, *rest)
        known = distances[np.isfinite(distances)]
        by_batch[batch] = float(np.median(known)) if known.size else None
        expected.append(_expected(indicators, centred, code, other))
    known_medians = [value for value in by_batch.values() if value is not None]
    return {
        "against": f"batch {reference}" if reference in names else "the other batches pooled",
        "by_batch": by_batch,
        "median": float(np.median(known_medians)) if known_medians else None,
        "expected": float(np.median(expected)) if expected else None,
    }


def _expected(indicators: FloatArray, covariates: FloatArray, code: int, other: list[int]) -> float:
    """Return the median distance of a batch to `other` ones that do not differ from it."""
    counts = indicators.sum(axis=0)
    means = indicators.T @ covariates / counts[:, None]
    within = covariates - indicators @ means
    uncertain = np.linalg.pinv(within.T @ within, hermitian=True)
    gap = means[code] - counts[other] @ means[other] / counts[other].sum()
    unit = float(1 / counts[code] + 1 / counts[other].sum())
    return unit / 8 * _median_sum(1 + float(gap @ uncertain @ gap) / unit)


def _median_sum(inflation: float) -> float:
    """Return the median of two chi squared of one degree, one of them `inflation` fold (by Satterthwaite)."""
    degrees = (1 + inflation) ** 2 / (1 + inflation**2)
    return float(stats.chi2.median(degrees) * (1 + inflation) / degrees)


def _moments(count: float, sums: FloatArray, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = sums / count
    return mean, (squares - count * mean**2) / (count - 1)


def _distance(mean: FloatArray, variance: FloatArray, other: FloatArray, spread: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = variance + spread
        return np.asarray(
            (mean - other) ** 2 / whole / 4 + np.log(whole / (2 * np.sqrt(variance * spread))) / 2
        )
