"""From least-squares summaries to the shift and scale of every batch, shrunk within feature pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import (
    Arrays,
    BoolArray,
    Finding,
    FloatArray,
    HarmonizationRefused,
    IntArray,
)
from harmonization_app.algorithms.design import Design, pool_columns
from harmonization_app.algorithms.empirical_bayes import (
    BatchMoments,
    Prior,
    estimate_prior,
    shrink_mean_only,
    shrink_nonparametric,
    shrink_parametric,
)
from harmonization_app.algorithms.kernel import BatchEffects, Statistics
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled

# Residuals smaller than this part of a feature's own size are rounding, not variance.
EXACT_FIT_RATIO = 1e-11
# A batch whose residual variance is below this part of the pooled one was fitted exactly: its scale is not estimable.
LEAST_SCALE = 1e-12


# The arrays of a fit that depend on batches, and the steps of its shrinkage by pool and batch.
Estimated = tuple[dict[str, FloatArray], dict[str, dict[str, int]]]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Standardized batch effects before shrinkage, [batches x features].

    `constant` marks cells whose scale is not estimable and stays 1; `passed_through` [features] by reason
    those left as they are (shift 0, scale 1).
    """

    shift: FloatArray
    scale: FloatArray
    squares: FloatArray
    counts: FloatArray
    constant: BoolArray
    pooled_variance: FloatArray
    grand_mean: FloatArray
    passed_through: Mapping[str, BoolArray]

    @property
    def left_out(self) -> BoolArray:
        return np.logical_or.reduce(list(self.passed_through.values()))


def standardize(
    table: Labelled, design: Design, statistics: Statistics, specification: Specification
) -> Moments:
    """Return standardized batch effects, in the place of the intercepts and squares of `statistics`, which are lost.

    Raises HarmonizationRefused where a feature has no residual variance.
    """
    counts, squares = _narrow(statistics.counts), statistics.residual_squares
    if specification.reference_batch is None:
        grand_mean = (design.batch_sizes / design.batch_sizes.sum()) @ statistics.intercepts
        pooled = squares.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    else:
        index = design.batches.index(specification.reference_batch)
        grand_mean = statistics.intercepts[index].copy()
        pooled = squares[index] / np.maximum(counts[index], 1.0)
    passed = _passed_through(table, statistics, pooled, specification)
    left_out = np.logical_or.reduce(list(passed.values()))
    pooled[left_out] = 1.0
    shift = np.subtract(statistics.intercepts, grand_mean, out=statistics.intercepts)
    shift /= np.sqrt(pooled)
    scale = np.ones_like(shift)
    if not specification.mean_only:
        np.divide(squares, np.maximum(counts - 1.0, 1.0), out=scale)
        scale /= pooled
    scale[statistics.constant | (scale <= LEAST_SCALE)] = 1.0
    shift[:, left_out], scale[:, left_out] = 0.0, 1.0
    squares /= pooled
    return Moments(shift, scale, squares, statistics.counts, statistics.constant, pooled, grand_mean, passed)


def shrink(moments: Moments, design: Design, table: Labelled, specification: Specification) -> Estimated:
    """Return shifts, scales [batches x features] and priors [pools x batches x 4], and steps by pool and
    batch. A reference batch has no prior: its scale is the pooled one, the same for all features.
    """
    shift, scale = moments.shift.copy(), moments.scale.copy()
    pools = pool_columns(table, specification, ~moments.left_out)
    _require_shared_priors(pools, specification)
    priors = np.full((len(pools), len(design.batches), 4), np.nan)
    iterations: dict[str, dict[str, int]] = {pool: {} for pool in pools}
    for pool_index, (pool, columns) in enumerate(pools.items()):
        everything = columns.size == shift.shape[1] and bool(np.all(np.diff(columns) == 1))
        at = slice(None) if everything else columns
        for index, batch in enumerate(design.batches):
            if not specification.eb or not columns.size or batch == specification.reference_batch:
                continue
            own = BatchMoments(
                *(part[index, at] for part in (moments.shift, moments.scale, moments.squares, moments.counts))
            )
            prior = estimate_prior(own.shift, own.scale, specification.mean_only)
            priors[pool_index, index] = (prior.mean, prior.variance, prior.shape, prior.rate)
            shift[index, at], scale[index, at], iterations[pool][batch] = _shrink_batch(
                batch, own, prior, specification
            )
    if specification.mean_only:
        scale[:] = 1.0
    scale[moments.constant] = 1.0
    if specification.reference_batch is not None:
        reference = design.batches.index(specification.reference_batch)
        shift[reference], scale[reference] = 0.0, 1.0
    _require_finite(shift, scale, table)
    arrays = {
        "gamma_hat": moments.shift,
        "delta_hat": moments.scale,
        "gamma_star": shift,
        "delta_star": scale,
    }
    return {**arrays, "priors": priors}, iterations


def batch_effects(arrays: Arrays) -> BatchEffects:
    """Return what a fitted model takes off."""
    deviation = np.sqrt(arrays["pooled_variance"])
    return BatchEffects(
        arrays["gamma_star"], arrays["delta_star"], deviation, arrays["grand_mean"], arrays["coefficients"]
    )


def _shrink_batch(
    batch: str, moments: BatchMoments, prior: Prior, specification: Specification
) -> tuple[FloatArray, FloatArray, int]:
    if not specification.parametric:
        shift, scale = shrink_nonparametric(moments)
        return shift, scale, 1
    if specification.mean_only:
        return shrink_mean_only(moments, prior), np.ones_like(moments.scale), 1
    return shrink_parametric(batch, moments, prior)


def _passed_through(
    table: Labelled, statistics: Statistics, pooled: FloatArray, specification: Specification
) -> dict[str, BoolArray]:
    level = np.einsum("bf,bf->f", statistics.intercepts, statistics.intercepts) / len(statistics.intercepts)
    level += np.einsum("cf,cf->f", statistics.coefficients, statistics.coefficients)
    level = np.sqrt(level)
    exact = ~(np.sqrt(pooled) > EXACT_FIT_RATIO * level)
    sparse = (_narrow(statistics.counts) < specification.minimum_scans).any(axis=0)
    lacking = (statistics.unusable | sparse) & ~statistics.uniform
    refused = exact & ~statistics.uniform & ~lacking
    if specification.unusable_features == "refuse":
        refused |= lacking
    if refused.any():
        raise HarmonizationRefused([not_estimable(tuple(table.features[i] for i in np.flatnonzero(refused)))])
    return {"constant": statistics.uniform.copy(), "unusable": lacking}


def _narrow(counts: FloatArray) -> FloatArray:
    """Return counts that are the same for all features as one column [batches x 1]."""
    return counts[:, :1] if counts.strides[1] == 0 else counts


def _require_shared_priors(pools: Mapping[str, IntArray], specification: Specification) -> None:
    lone = [pool for pool, columns in pools.items() if columns.size == 1]
    if specification.eb and lone:
        message = (
            f"Pool {', '.join(lone)} has one usable feature; empirical Bayes needs at least two. Plan eb off."
        )
        raise HarmonizationRefused([Finding("too_few_features_for_eb", "stop", message)])


def _require_finite(shift: FloatArray, scale: FloatArray, table: Labelled) -> None:
    faulty = ~(np.isfinite(shift) & np.isfinite(scale) & (scale > 0)).all(axis=0)
    if faulty.any():
        raise HarmonizationRefused([not_estimable(tuple(table.features[i] for i in np.flatnonzero(faulty)))])


def not_estimable(features: tuple[str, ...]) -> Finding:
    message = (
        "These features leave no residual variance, or their observed scans do not determine the covariates' "
        f"effects: {', '.join(features[:10])}{' ...' if len(features) > 10 else ''}. Leave them out of "
        "the plan."
    )
    return Finding("feature_not_estimable", "stop", message, columns=features)
