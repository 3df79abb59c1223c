"""Mixtures of two normal distributions, fitted to many features at once by expectation and maximization.

Nothing is drawn at random: each feature starts from the split of its sorted values that leaves the least squares
within, so that the same values always give the same mixture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from harmonization_app.algorithms.base import FloatArray

# A fit ends when neither mean of the standardized values moves by more than this.
TOLERANCE = 1e-7
MOST_STEPS = 500
# Least variance of a component, in the variance of the feature: a component may not shrink on a few equal values.
VARIANCE_FLOOR = 1e-4
FEATURES_AT_ONCE = 256
# Parameters of two components less those of one.
FURTHER_PARAMETERS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Mixtures:
    """Mixtures by feature: `centre` and `scale` [features] standardize its values; `weights`, `means` and `variances`
    [2 x features] are those of the standardized values, the component with the lower mean first. `gain` [features]
    is the AIC of one normal distribution less that of the mixture.
    """

    centre: FloatArray
    scale: FloatArray
    weights: FloatArray
    means: FloatArray
    variances: FloatArray
    gain: FloatArray

    def upper(self, values: FloatArray) -> FloatArray:
        """Return the probability [scans x features] that each value is of the upper component."""
        logs = _log_densities((values - self.centre) / self.scale, self.weights, self.means, self.variances)
        return np.asarray(np.exp(logs[1] - np.logaddexp(logs[0], logs[1])))


def fit_mixtures(values: FloatArray, least_share: float) -> Mixtures:
    """Return the mixtures of complete, varying features [scans x features].

    `least_share` is the smallest part of the scans on either side of the split that the fit starts from.
    """
    centre, scale = values.mean(axis=0), values.std(axis=0)
    standard = (values - centre) / scale
    blocks = [
        _expectation_maximization(standard[:, start : start + FEATURES_AT_ONCE], least_share)
        for start in range(0, values.shape[1], FEATURES_AT_ONCE)
    ]
    weights, means, variances = (np.concatenate([block[at] for block in blocks], axis=1) for at in range(3))
    order = np.argsort(means, axis=0, kind="stable")
    weights, means, variances = (
        np.take_along_axis(own, order, axis=0) for own in (weights, means, variances)
    )
    logs = _log_densities(standard, weights, means, variances)
    likelihood = np.logaddexp(logs[0], logs[1]).sum(axis=0)
    single = -0.5 * len(values) * (math.log(2 * math.pi) + 1)
    gain = 2 * (likelihood - single) - 2 * FURTHER_PARAMETERS
    return Mixtures(centre, scale, weights, means, variances, gain)


def _expectation_maximization(
    standard: FloatArray, least_share: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weights, means and variances [2 x features]; features that have settled are left alone."""
    squares = standard**2
    totals = np.stack(
        [np.full(standard.shape[1], float(len(standard))), standard.sum(axis=0), squares.sum(axis=0)]
    )
    weights, means, variances = _maximize(standard, squares, totals, _first_split(standard, least_share))
    active = np.arange(standard.shape[1])
    own, own_squares, own_totals = standard, squares, totals
    for _ in range(MOST_STEPS):
        upper = _probabilities(own, own_squares, weights[:, active], means[:, active], variances[:, active])
        found = _maximize(own, own_squares, own_totals, upper)
        moving = np.abs(found[1] - means[:, active]).max(axis=0) > TOLERANCE
        weights[:, active], means[:, active], variances[:, active] = found
        if not moving.any():
            break
        if not moving.all():
            active = active[moving]
            own, own_squares, own_totals = standard[:, active], squares[:, active], totals[:, active]
    return weights, means, variances


def _probabilities(
    standard: FloatArray, squares: FloatArray, weights: FloatArray, means: FloatArray, variances: FloatArray
) -> FloatArray:
    """Return the probability of the upper component; its log odds are a parabola of the value."""
    bend, slope = -0.5 / variances, means / variances
    height = np.log(weights) - 0.5 * np.log(variances) - 0.5 * means**2 / variances
    odds = squares * (bend[1] - bend[0])
    odds += standard * (slope[1] - slope[0])
    odds += height[1] - height[0]
    return np.asarray(expit(odds, out=odds))


def _first_split(standard: FloatArray, least_share: float) -> FloatArray:
    """Return 1 for the values above the split with the least squares within, 0 for the others."""
    scans = len(standard)
    least = max(2, math.ceil(least_share * scans))
    ranked = np.sort(standard, axis=0)
    lower = np.cumsum(ranked, axis=0)[least - 1 : scans - least]
    sizes = np.arange(least, scans - least + 1)[:, None]
    # Least squares within are largest squares between; the standardized values sum to zero.
    between = lower**2 / sizes + (standard.sum(axis=0) - lower) ** 2 / (scans - sizes)
    below = least - 1 + np.argmax(between, axis=0)
    limits = np.take_along_axis(ranked, below[None, :], axis=0)
    return np.asarray((standard > limits).astype(np.float64))


def _maximize(
    standard: FloatArray, squares: FloatArray, totals: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weights, means and variances [2 x features] given the probabilities of the upper component.

    `totals` [3 x features] are the number of scans and the sums of the values and of their squares.
    """
    above = np.stack(
        [
            upper.sum(axis=0),
            np.einsum("sf,sf->f", upper, standard),
            np.einsum("sf,sf->f", upper, squares),
        ]
    )
    sums = np.stack([totals - above, above], axis=1)
    # A component nobody belongs to keeps the middle of the feature and is found unbalanced later.
    sizes = np.maximum(sums[0], 1e-12)
    means = sums[1] / sizes
    variances = np.maximum(sums[2] / sizes - means**2, VARIANCE_FLOOR)
    return sizes / len(standard), means, variances


def _log_densities(
    standard: FloatArray, weights: FloatArray, means: FloatArray, variances: FloatArray
) -> FloatArray:
    """Return the log of weight times density, [2 x scans x features]."""
    squares = (standard - means[:, None, :]) ** 2 / variances[:, None, :]
    return np.asarray(
        np.log(weights)[:, None, :] - 0.5 * (np.log(2 * np.pi * variances)[:, None, :] + squares)
    )
