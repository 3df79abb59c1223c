"""Empirical Bayes estimates of batch shift and scale, over the features of one pool.

Sources: Johnson, Li, Rabinovic, Biostatistics 8:118 (2007), sections 3.2 and 3.3; the stopping rule is that
of the published R code (sva::ComBat, neuroCombat), on which results depend in the fifth digit of an SD.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import Finding, FloatArray, HarmonizationRefused

CONVERGENCE = 1e-4
MAXIMUM_ITERATIONS = 10_000
LIKELIHOOD_CELLS = 1 << 20
CHUNK_FEATURES = 1 << 10


@dataclass(frozen=True, slots=True, eq=False)
class BatchMoments:
    """One batch over the features of one pool: shift, scale, sum of squares about the shift, scans observed.

    All are in units of the pooled standard deviation, each [features].
    """

    shift: FloatArray
    scale: FloatArray
    squares: FloatArray
    counts: FloatArray


@dataclass(frozen=True, slots=True)
class Prior:
    """Hyperparameters of a batch: normal (mean, variance) of the shift, inverse gamma (shape, rate) of the
    scale.
    """

    mean: float
    variance: float
    shape: float
    rate: float


def estimate_prior(shift: FloatArray, scale: FloatArray, mean_only: bool) -> Prior:
    """Return the hyperparameters by the method of moments (sample variances, denominator features - 1)."""
    mean, variance = float(np.mean(shift)), float(np.var(shift, ddof=1))
    if mean_only:
        return Prior(mean, variance, float("nan"), float("nan"))
    centre, spread = float(np.mean(scale)), float(np.var(scale, ddof=1))
    if spread == 0:
        raise HarmonizationRefused([_no_spread()])
    return Prior(mean, variance, (2 * spread + centre**2) / spread, (centre * spread + centre**3) / spread)


def shrink_mean_only(moments: BatchMoments, prior: Prior) -> FloatArray:
    """Return the posterior shift with unit scale and unit count, as the published mean-only mode has it."""
    return (prior.variance * moments.shift + prior.mean) / (prior.variance + 1.0)


def shrink_parametric(batch: str, moments: BatchMoments, prior: Prior) -> tuple[FloatArray, FloatArray, int]:
    """Return posterior shift, scale and the number of steps to their common fixed point.

    All features stop together, when the largest relative change is at most 1e-4; the change is divided by the
    old value with its sign, as published. Raises HarmonizationRefused when 10,000 steps do not suffice.
    """
    from harmonization_app.algorithms import shrinkage_loops

    shift, scale = moments.shift.copy(), moments.scale.copy()
    steps = shrinkage_loops.settle(
        shift,
        scale,
        *(np.ascontiguousarray(part) for part in (moments.shift, moments.counts, moments.squares)),
        prior.mean,
        prior.variance,
        prior.shape,
        prior.rate,
        CONVERGENCE,
        MAXIMUM_ITERATIONS,
        CHUNK_FEATURES,
    )
    if not steps:
        raise HarmonizationRefused([_not_converged(batch)])
    return shift, scale, steps


def shrink_nonparametric(moments: BatchMoments) -> tuple[FloatArray, FloatArray]:
    """Return the posterior shift and scale under the empirical prior of the other features.

    Weights are exponentials of log-likelihoods after their maximum is taken off, so that a batch of thousands
    of scans does not underflow. Needs features x features evaluations, in blocks.
    """
    features = len(moments.shift)
    shift, scale = np.empty(features), np.empty(features)
    log_scale = np.log(2.0 * np.pi * moments.scale)
    width = max(1, LIKELIHOOD_CELLS // features)
    for start in range(0, features, width):
        rows = np.arange(start, min(start + width, features))
        counts = moments.counts[rows, None]
        squares = moments.squares[rows, None] + counts * (moments.shift[rows, None] - moments.shift) ** 2
        log_likelihood = -0.5 * (counts * log_scale + squares / moments.scale)
        log_likelihood[np.arange(len(rows)), rows] = -np.inf
        log_likelihood -= log_likelihood.max(axis=1, keepdims=True)
        weights = np.exp(log_likelihood)
        weights /= weights.sum(axis=1, keepdims=True)
        shift[rows] = weights @ moments.shift
        scale[rows] = weights @ moments.scale
    return shift, scale


def _no_spread() -> Finding:
    return Finding(
        "no_spread_of_scales",
        "stop",
        "The batch's variances are the same for all features of the pool, so their prior has no spread. "
        "Run with eb off, or mean-only.",
    )


def _not_converged(batch: str) -> Finding:
    message = (
        f"The empirical Bayes estimates of batch {batch} did not settle within {MAXIMUM_ITERATIONS} steps; "
        "the batch's values do not follow the model. Look at its outliers, or run with eb off."
    )
    return Finding("eb_not_converged", "stop", message, batches=(batch,))
