"""Bhattacharyya distance of each batch to the reference batch, or to the other batches pooled.

Two normal distributions per feature, after the covariates' effects (estimated beside batch) are taken out, as in
Jodoin et al., Sci Rep 15:41508 (2025). Between batches that do not differ it is about an eighth of 1/n + 1/m times a
chi squared with two degrees of freedom; `expected` is the median of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.diagnostics.regression import regress

# Median of chi squared with two degrees of freedom.
MEDIAN_CHI2 = 1.386294


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
    indicators = np.eye(len(batches))[codes]
    centred = covariates - covariates.mean(axis=0)
    fit = regress(np.hstack([indicators, centred]), values)
    adjusted = values - centred @ fit.coefficients[len(batches) :]
    adjusted = adjusted - adjusted.mean(axis=0)
    counts = indicators.sum(axis=0)
    sums, squares = indicators.T @ adjusted, indicators.T @ adjusted**2
    by_batch: dict[str, float | None] = {}
    expected = []
    for code, batch in enumerate(batches):
        if batch == reference:
            continue
        other = (
            [batches.index(reference)]
            if reference in batches
            else [i for i in range(len(batches)) if i != code]
        )
        own = _moments(counts[code], sums[code], squares[code])
        rest = _moments(counts[other].sum(), sums[other].sum(axis=0), squares[other].sum(axis=0))
        distances = _distance(*own, *rest)
        known = distances[np.isfinite(distances)]
        by_batch[batch] = float(np.median(known)) if known.size else None
        expected.append(MEDIAN_CHI2 / 8 * (1 / counts[code] + 1 / counts[other].sum()))
    known_medians = [value for value in by_batch.values() if value is not None]
    return {
        "against": f"batch {reference}" if reference in batches else "the other batches pooled",
        "by_batch": by_batch,
        "median": float(np.median(known_medians)) if known_medians else None,
        "expected": float(np.median(expected)) if expected else None,
    }


def _moments(count: float, sums: FloatArray, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    if count < 2:
        return sums, np.full_like(sums, np.nan)
    mean = sums / count
    return mean, (squares - count * mean**2) / (count - 1)


def _distance(mean: FloatArray, variance: FloatArray, other: FloatArray, spread: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = variance + spread
        return np.asarray(
            (mean - other) ** 2 / whole / 4 + np.log(whole / (2 * np.sqrt(variance * spread))) / 2
        )
