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
        expected.append(MEDIAN_CHI2 / 8 * (1 / counts[code] + 1 / counts[other].sum()))
    known_medians = [value for value in by_batch.values() if value is not None]
    return {
        "against": f"batch {reference}" if reference in names else "the other batches pooled",
        "by_batch": by_batch,
        "median": float(np.median(known_medians)) if known_medians else None,
        "expected": float(np.median(expected)) if expected else None,
    }


def _moments(count: float, sums: FloatArray, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = sums / count
    return mean, (squares - count * mean**2) / (count - 1)


def _distance(mean: FloatArray, variance: FloatArray, other: FloatArray, spread: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = variance + spread
        return np.asarray(
            (mean - other) ** 2 / whole / 4 + np.log(whole / (2 * np.sqrt(variance * spread))) / 2
        )
