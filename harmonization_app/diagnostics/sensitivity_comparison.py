"""How one analysis compares with the main run: its values and its covariate effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.diagnostics.covariate_effects import Estimates
from harmonization_app.diagnostics.scope import median

LARGEST = 20


def effect_move(name: str, row: int, own: Estimates, whole: Estimates, spread: FloatArray) -> dict[str, Any]:
    """Return how one covariate's effects moved from those of the whole, in the standard errors of the whole.

    Their own median is in SD of the feature, `spread` [features].
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = (own.value[row] - whole.value[row]) / whole.error[row]
    known = moved[np.isfinite(moved)]
    return {
        "covariate": name,
        "median": median(own.value[row] / spread),
        "median_move_in_errors": median(moved),
        "greatest_move_in_errors": float(np.abs(known).max()) if known.size else None,
        "same_sign": _same_sign(own.value[row], whole.value[row]),
    }


def compare_effects(own: Estimates, main: Estimates, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return by covariate how the main run's estimates lie in this analysis's intervals."""
    found = []
    for row, name in enumerate(names):
        value, yardstick = main.value[row], own.value[row]
        known = np.isfinite(value) & np.isfinite(own.low[row])
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = (value - yardstick) / own.error[row]
        inside = (own.low[row] <= value) & (value <= own.high[row])
        kept = own.significant[row] == main.significant[row]
        found.append(
            {
                "covariate": name,
                "features": int(known.sum()),
                "covered": float(inside[known].mean()) if known.any() else None,
                "same_sign": _same_sign(value, yardstick),
                "median_difference_in_errors": median(gap[known]),
                "greatest_difference_in_errors": float(np.abs(gap[known]).max()) if known.any() else None,
                "significance_kept": float(kept[known].mean()) if known.any() else None,
            }
        )
    return found


def _same_sign(first: FloatArray, second: FloatArray) -> float | None:
    known = np.isfinite(first) & np.isfinite(second)
    return float((np.sign(first[known]) == np.sign(second[known])).mean()) if known.any() else None


def value_differences(
    values: FloatArray, after: FloatArray, spread: FloatArray, dataset: Dataset
) -> dict[str, Any] | None:
    """Return how far the analysis's values lie from the main run's, in SD of the feature before."""
    size = np.abs(values - after) / spread
    flat = np.where(np.isfinite(size), size, -1.0).ravel()
    known = flat[flat >= 0]
    if not known.size:
        return None
    count = min(LARGEST, len(known))
    top = np.argpartition(-flat, count - 1)[:count]
    top = top[np.lexsort((top, -flat[top]))]
    return {
        "median_sd": float(np.median(known)),
        "q95_sd": float(np.quantile(known, 0.95)),
        "greatest_sd": float(known.max()),
        "largest": [
            {
                "row": dataset.rows[cell // size.shape[1]],
                "feature": dataset.features[cell % size.shape[1]],
                "sd": float(flat[cell]),
            }
            for cell in top.tolist()
        ],
    }
