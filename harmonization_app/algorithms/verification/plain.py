"""ComBat written plainly, feature by feature, as a second implementation to hold the kernel against.

It shares no code with the kernel: full indicator design, one least-squares solution per feature, sums as the
papers print them (Johnson, Li, Rabinovic, Biostatistics 8:118 (2007), sections 3.1 to 3.3; Fortin et al.
2017). It is slow and needs the memory of several copies of the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PlainResult:
    """Harmonized values [scans x features], steps by batch and the fitted parameters for `plain_apply`."""

    values: Array
    iterations: Mapping[str, int]
    parameters: Mapping[str, Any]


def plain_combat(
    values: Array,
    batches: Sequence[str],
    covariates: Array,
    *,
    eb: bool = True,
    parametric: bool = True,
    mean_only: bool = False,
    reference: str | None = None,
) -> PlainResult:
    """Return `values` [scans x features] harmonized over `batches`, preserving `covariates` [scans x
    columns].
    """
    levels = sorted(set(batches))
    labels = np.array(batches)
    features = [column for column in range(values.shape[1]) if not _uniform(values[:, column])]
    fits = {
        column: _least_squares(values[:, column], labels, levels, covariates, reference)
        for column in features
    }
    standard = {column: (values[:, column] - fit["fitted"]) / fit["sd"] for column, fit in fits.items()}
    corrected = values.copy()
    iterations: dict[str, int] = {}
    effects: dict[str, dict[int, tuple[float, float]]] = {}
    for level in levels:
        rows = labels == level
        if level == reference:
            effects[level] = dict.fromkeys(features, (0.0, 1.0))
        else:
            effects[level], iterations[level] = _batch_effects(
                {column: standard[column][rows] for column in features},
                {column for column in features if _uniform(values[rows, column]) and rows.sum() > 1},
                eb=eb,
                parametric=parametric,
                mean_only=mean_only,
            )
        for column, (shift, scale) in effects[level].items():
            fit = fits[column]
            adjusted = (standard[column][rows] - shift) / math.sqrt(scale)
            corrected[rows, column] = adjusted * fit["sd"] + fit["fitted"][rows]
    return PlainResult(corrected, iterations, {"fits": fits, "effects": effects})


def plain_apply(result: PlainResult, values: Array, batches: Sequence[str], covariates: Array) -> Array:
    """Return new scans of known batches corrected by the parameters of `result`, with their own
    covariates.
    """
    corrected = values.copy()
    for row, batch in enumerate(batches):
        for column, (shift, scale) in result.parameters["effects"][batch].items():
            fit = result.parameters["fits"][column]
            fitted = fit["grand_mean"] + float(covariates[row] @ fit["slopes"])
            adjusted = ((values[row, column] - fitted) / fit["sd"] - shift) / math.sqrt(scale)
            corrected[row, column] = adjusted * fit["sd"] + fitted
    return corrected


def _uniform(column: Array) -> bool:
    observed = column[~np.isnan(column)]
    return bool(observed.size and np.all(observed == observed[0]))


def _least_squares(
    column: Array, labels: npt.NDArray[np.str_], levels: list[str], covariates: Array, reference: str | None
) -> dict[str, Any]:
    """Return one feature's grand mean, slopes, pooled standard deviation and fitted values without batch
    effects.
    """
    design = np.hstack([(labels[:, None] == np.array(levels)).astype(float), covariates])
    seen = ~np.isnan(column)
    # The mean is taken off first and put back, so that values far from zero keep their digits.
    level = float(column[seen].mean())
    column = column - level
    coefficients = np.linalg.lstsq(design[seen], column[seen], rcond=None)[0]
    intercepts, slopes = coefficients[: len(levels)], coefficients[len(levels) :]
    residuals = column - design @ coefficients
    if reference is None:
        grand_mean = sum(
            float(np.mean(labels == level)) * b for level, b in zip(levels, intercepts, strict=True)
        )
        variance = np.mean(residuals[seen] ** 2)
    else:
        grand_mean = intercepts[levels.index(reference)]
        variance = np.mean(residuals[seen & (labels == reference)] ** 2)
    grand_mean += level
    fitted = grand_mean + covariates @ slopes
    return {"grand_mean": grand_mean, "slopes": slopes, "sd": math.sqrt(variance), "fitted": fitted}


def _batch_effects(
    standard: Mapping[int, Array], constant: set[int], *, eb: bool, parametric: bool, mean_only: bool
) -> tuple[dict[int, tuple[float, float]], int]:
    """Return (shift, scale) of each feature in one batch, and the number of steps taken."""
    columns = list(standard)
    observed = [standard[column][~np.isnan(standard[column])] for column in columns]
    shift = np.array([part.mean() for part in observed])
    scale = np.ones(len(columns))
    if not mean_only:
        scale = np.array([part.var(ddof=1) for part in observed])
        scale = np.array([1.0 if c in constant or s == 0 else s for c, s in zip(columns, scale, strict=True)])
    steps = 0
    if eb and not parametric:
        shift, scale = _empirical(observed, shift, scale)
        steps = 1
    elif eb and mean_only:
        shift = (shift.var(ddof=1) * shift + shift.mean()) / (shift.var(ddof=1) + 1)
        steps = 1
    elif eb:
        shift, scale, steps = _posterior(observed, shift, scale)
    if mean_only:
        scale = np.ones(len(columns))
    scale = np.array([1.0 if c in constant else s for c, s in zip(columns, scale, strict=True)])
    return {c: (g, d) for c, g, d in zip(columns, shift.tolist(), scale.tolist(), strict=True)}, steps


def _posterior(observed: list[Array], shift: Array, scale: Array) -> tuple[Array, Array, int]:
    """Return the parametric posterior means by iterating equations 3.1 of the paper until the published
    stop.
    """
    mean, variance = shift.mean(), shift.var(ddof=1)
    centre, spread = scale.mean(), scale.var(ddof=1)
    shape = (2 * spread + centre**2) / spread
    rate = (centre * spread + centre**3) / spread
    old_shift, old_scale = shift, scale
    for step in range(1, 10_001):
        new_shift, new_scale = np.empty_like(shift), np.empty_like(scale)
        for i, values in enumerate(observed):
            n = len(values)
            new_shift[i] = (n * variance * shift[i] + old_scale[i] * mean) / (n * variance + old_scale[i])
            squares = float(np.sum((values - new_shift[i]) ** 2))
            new_scale[i] = (rate + 0.5 * squares) / (n / 2 + shape - 1)
        relative_shift = np.max(np.abs(new_shift - old_shift) / old_shift)
        relative_scale = np.max(np.abs(new_scale - old_scale) / old_scale)
        if max(relative_shift, relative_scale) <= 1e-4:
            return new_shift, new_scale, step
        old_shift, old_scale = new_shift, new_scale
    raise ArithmeticError("The posterior means did not settle in 10,000 steps.")


def _empirical(observed: list[Array], shift: Array, scale: Array) -> tuple[Array, Array]:
    """Return the posterior means under the empirical prior of the other features, by log-likelihoods."""
    new_shift, new_scale = np.empty_like(shift), np.empty_like(scale)
    for i, values in enumerate(observed):
        others = [j for j in range(len(observed)) if j != i]
        logs = np.array(
            [
                -0.5 * len(values) * math.log(2 * math.pi * scale[j])
                - float(np.sum((values - shift[j]) ** 2)) / (2 * scale[j])
                for j in others
            ]
        )
        weights = np.exp(logs - logs.max())
        new_shift[i] = np.sum(weights * shift[others]) / weights.sum()
        new_scale[i] = np.sum(weights * scale[others]) / weights.sum()
    return new_shift, new_scale
