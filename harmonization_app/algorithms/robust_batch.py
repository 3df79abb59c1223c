"""Robust shift and scale of one batch from its standardized values, shrunk within feature pools.

Source: ComBatFamily (comfam and its predict with robust.LS = TRUE): as ComBat, with medians for means, biweight
midvariances for variances and, in the empirical Bayes steps, (n - 1) midvariances about the shrunken shift for sums
of squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import BoolArray, Finding, FloatArray, HarmonizationRefused, IntArray
from harmonization_app.algorithms.empirical_bayes import (
    CONVERGENCE,
    MAXIMUM_ITERATIONS,
    Prior,
    estimate_prior,
)
from harmonization_app.algorithms.robust import medians, midvariances
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import listed


@dataclass(frozen=True, slots=True, eq=False)
class BatchEstimates:
    """One batch: `shift` and `scale` [features] before shrinkage and after (`own_`), `priors` [pools x 4], `steps` by
    pool.
    """

    shift: FloatArray
    scale: FloatArray
    own_shift: FloatArray
    own_scale: FloatArray
    priors: FloatArray
    steps: dict[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Standardized:
    """The standardized values [features x scans] of `batch`; `usable` and `constant` [features] mark features that are
    harmonized at all and that have one value in this batch.
    """

    batch: str
    features: Sequence[str]
    values: FloatArray
    usable: BoolArray
    constant: BoolArray


def estimate_batch(
    standard: Standardized, pools: Mapping[str, IntArray], specification: Specification
) -> BatchEstimates:
    """Return the estimates of one batch. Raises HarmonizationRefused where a scale is not estimable."""
    shift, scale = _location_scale(standard, specification)
    own_shift, own_scale = shift.copy(), scale.copy()
    priors, steps = np.full((len(pools), 4), np.nan), {}
    for index, (pool, columns) in enumerate(pools.items()):
        if not specification.eb or not columns.size:
            continue
        if columns.size == 1:
            message = f"Pool {pool} has one usable feature; empirical Bayes needs at least two. Plan eb off."
            raise HarmonizationRefused([Finding("too_few_features_for_eb", "stop", message)])
        prior = estimate_prior(shift[columns], scale[columns], specification.mean_only)
        priors[index] = (prior.mean, prior.variance, prior.shape, prior.rate)
        if specification.mean_only:
            own_shift[columns] = (prior.variance * shift[columns] + prior.mean) / (prior.variance + 1.0)
            steps[pool] = 1
        else:
            found = _shrink(standard.batch, prior, standard.values[columns], shift[columns], scale[columns])
            own_shift[columns], own_scale[columns], steps[pool] = found
    own_scale[standard.constant] = 1.0
    return BatchEstimates(shift, scale, own_shift, own_scale, priors, steps)


def require_estimable(variances: FloatArray, features: Sequence[str], where: str) -> None:
    """Raise HarmonizationRefused naming the features whose robust variance is unknown or 0."""
    names = tuple(features[i] for i in np.flatnonzero(~(np.isfinite(variances) & (variances > 0))).tolist())
    if not names:
        return
    message = (
        f"In {where} more than half of the values of {listed(names)} are equal; a robust scale cannot be "
        "estimated. Leave these features out of the plan, or plan combat."
    )
    raise HarmonizationRefused([Finding("robust_scale_not_estimable", "stop", message, columns=names)])


def _location_scale(standard: Standardized, specification: Specification) -> tuple[FloatArray, FloatArray]:
    shift, scale = np.zeros(len(standard.values)), np.ones(len(standard.values))
    shift[standard.usable] = medians(standard.values[standard.usable])
    if not specification.mean_only:
        varying = np.flatnonzero(standard.usable & ~standard.constant)
        scale[varying] = midvariances(standard.values[varying], shift[varying])
        require_estimable(scale, standard.features, f"batch {standard.batch}")
    return shift, scale


def _shrink(
    batch: str, prior: Prior, standard: FloatArray, shift: FloatArray, scale: FloatArray
) -> tuple[FloatArray, FloatArray, int]:
    """Return posterior shift and scale of the pool's features [features x scans], and the steps taken."""
    counts = np.sum(~np.isnan(standard), axis=1).astype(np.float64)
    weight, old_shift, old_scale = counts * prior.variance, shift, scale
    for step in range(1, MAXIMUM_ITERATIONS + 1):
        new_shift = (weight * shift + old_scale * prior.mean) / (weight + old_scale)
        squares = (counts - 1.0) * midvariances(standard, new_shift)
        new_scale = (0.5 * squares + prior.rate) / (counts / 2.0 + prior.shape - 1.0)
        change = max(_change(new_shift, old_shift), _change(new_scale, old_scale))
        if change <= CONVERGENCE:
            return new_shift, new_scale, step
        if np.isnan(change):
            break
        old_shift, old_scale = new_shift, new_scale
    message = (
        f"The empirical Bayes estimates of batch {batch} did not settle within {MAXIMUM_ITERATIONS} steps. Look at "
        "its outliers, or run with eb off."
    )
    raise HarmonizationRefused([Finding("eb_not_converged", "stop", message, batches=(batch,))])


def _change(new: FloatArray, old: FloatArray) -> float:
    """Return the largest change over its old value, sign and all; a value that stays 0 has not changed."""
    difference = np.abs(new - old)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(difference == 0, 0.0, difference / old).max())
