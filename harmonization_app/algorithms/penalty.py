"""How strongly smooths are penalized: generalized cross-validation or restricted likelihood, by feature.

Sources: Wood, Generalized Additive Models, 2nd ed. (2017), sections 5.4.2, 6.2.1 and 6.2.6; J R Stat Soc B 73:3
(2011). All works in coordinates in which the penalized columns, cleared of batches and unpenalized columns, are
orthonormal, so that a feature enters by a few numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg

from harmonization_app.algorithms.base import FloatArray

Criterion = Literal["gcv", "reml"]
GRID_STEP = 0.25
# Beyond these the smooth is the straight line, or the unpenalized one, to within rounding.
LEAST_FREEDOM = 1e-8
BISECTIONS = 52


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What the choice of penalties needs of all features.

    `penalties` [smooths x columns x columns] of the orthonormal columns, `ranks` [smooths] of those matrices,
    `signals` [columns x features] the projections of the values, `unexplained` [features] the residual squares
    without penalty, `variances` [features] those of the raw values (denominator scans), `fixed` the number of
    unpenalized columns with the batches.
    """

    penalties: FloatArray
    ranks: FloatArray
    signals: FloatArray
    unexplained: FloatArray
    variances: FloatArray
    scans: int
    fixed: int

    def coefficients(self, log_penalties: FloatArray) -> FloatArray:
        """Return the penalized coefficients [columns x features] at `log_penalties` [smooths x features]."""
        found = np.empty_like(self.signals)
        if len(self.penalties) == 1:
            strengths = np.diag(self.penalties[0])[:, None]
            return np.asarray(self.signals / (1.0 + np.exp(log_penalties) * strengths))
        for feature, own in enumerate(log_penalties.T):
            found[:, feature] = scipy.linalg.solve(_inner(self.penalties, own), self.signals[:, feature])
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """A score at one point with its gradient [parameters] and Hessian; `variance` is that of the residuals."""

    score: float
    gradient: FloatArray
    hessian: FloatArray
    variance: float


def _inner(penalties: FloatArray, log_penalties: FloatArray) -> FloatArray:
    return np.asarray(np.eye(penalties.shape[1]) + np.tensordot(np.exp(log_penalties), penalties, 1))


def gcv(problem: Problem, feature: int, log_penalties: FloatArray) -> Derivatives:
    """Return scans * residual squares / (residual degrees of freedom)^2 by the logarithms of the penalties."""
    scaled = np.exp(log_penalties)[:, None, None] * problem.penalties
    inverse = np.linalg.inv(_inner(problem.penalties, log_penalties))
    kept = inverse @ problem.signals[:, feature]
    lost = problem.signals[:, feature] - kept
    moved = -inverse @ (scaled @ kept).T
    steps = inverse @ scaled
    squares = float(problem.unexplained[feature] + lost @ lost)
    slope = -2.0 * lost @ moved
    bend = 2.0 * moved.T @ moved
    freedom = problem.scans - problem.fixed - float(np.trace(inverse))
    gain = np.einsum("jab,ba->j", steps, inverse)
    gain_bend = np.diag(gain)
    for j, k in np.ndindex(bend.shape):
        second = -(steps[k] @ moved[:, j]) - (steps[j] @ moved[:, k]) + (j == k) * moved[:, j]
        bend[j, k] -= 2.0 * float(lost @ second)
        gain_bend[j, k] -= 2.0 * float(np.sum((steps[j] @ steps[k]) * inverse.T))
    score = problem.scans * squares / freedom**2
    mixed = np.outer(slope, gain) + np.outer(gain, slope)
    curved = bend / squares - (2.0 * mixed / squares + 2.0 * gain_bend) / freedom
    return Derivatives(
        score,
        score * (slope / squares - 2.0 * gain / freedom),
        score * (curved + 6.0 * np.outer(gain, gain) / freedom**2),
        squares / freedom,
    )


def reml(problem: Problem, feature: int, point: FloatArray, fixed: int) -> Derivatives:
    """Return the negative restricted log-likelihood by the logarithms of penalties and variance (the last).

    Up to a constant that depends on the columns' units; `fixed` is the number of unpenalized columns counted.
    """
    scaled = np.exp(point[:-1])[:, None, None] * problem.penalties
    inner = _inner(problem.penalties, point[:-1])
    inverse = np.linalg.inv(inner)
    kept = inverse @ problem.signals[:, feature]
    lost = problem.signals[:, feature] - kept
    steps = inverse @ scaled
    pulls = scaled @ kept
    variance = math.exp(point[-1])
    squares = float(problem.unexplained[feature] + problem.signals[:, feature] @ lost) / variance
    traces = np.einsum("jaa->j", steps)
    slope = pulls @ kept / variance
    left = problem.scans - fixed
    score = 0.5 * (squares + left * (math.log(2.0 * math.pi) + point[-1]) - problem.ranks @ point[:-1])
    score += 0.5 * float(np.linalg.slogdet(inner)[1])
    bend = np.diag(slope + traces) - 2.0 * pulls @ inverse @ pulls.T / variance
    bend -= np.einsum("jab,kba->jk", steps, steps)
    hessian = 0.5 * np.block([[bend, -slope[:, None]], [-slope[None, :], np.array([[squares]])]])
    gradient = 0.5 * np.append(slope + traces - problem.ranks, left - squares)
    freedom = problem.scans - problem.fixed - float(np.trace(inverse))
    residual = (problem.unexplained[feature] + lost @ lost) / freedom
    return Derivatives(score, gradient, hessian, float(residual))


def least_score(problem: Problem, criterion: Criterion) -> FloatArray:
    """Return the logarithms of the penalties [1 x features] at the least score, for a single smooth.

    The least of a grid of quarter steps over all penalties that make a difference, then bisection of the
    slope between its neighbours to the last bit; at an end of the grid, that end.
    """
    curve = _gcv_curve if criterion == "gcv" else _reml_curve
    strengths = 1.0 / np.diag(problem.penalties[0])
    low = math.log(LEAST_FREEDOM) - math.log(float(np.sum(1.0 / strengths)))
    high = math.log(float(np.sum(strengths))) - math.log(LEAST_FREEDOM)
    grid = np.arange(low, high + GRID_STEP, GRID_STEP)
    features = problem.signals.shape[1]
    best, place = np.full(features, np.inf), np.zeros(features, dtype=np.int64)
    for index, point in enumerate(grid.tolist()):
        scores = curve(problem, np.full(features, point))[0]
        better = scores < best
        best[better], place[better] = scores[better], index
    left, right = grid[np.maximum(place - 1, 0)], grid[np.minimum(place + 1, len(grid) - 1)]
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        falling = curve(problem, middle)[1] < 0
        left, right = np.where(falling, middle, left), np.where(falling, right, middle)
    at_end = (place == 0) | (place == len(grid) - 1)
    return np.where(at_end, grid[place], 0.5 * (left + right))[None, :]


Curve = Callable[[Problem, FloatArray], tuple[FloatArray, FloatArray]]


def _gcv_curve(problem: Problem, log_penalty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return logarithm of the GCV score and its slope, [features] each."""
    kept = 1.0 / (1.0 + np.exp(log_penalty) * np.diag(problem.penalties[0])[:, None])
    lost = 1.0 - kept
    remaining = (problem.signals * lost) ** 2
    squares = problem.unexplained + remaining.sum(axis=0)
    freedom = problem.scans - problem.fixed - kept.sum(axis=0)
    slope = 2.0 * np.sum(remaining * kept, axis=0) / squares - 2.0 * np.sum(lost * kept, axis=0) / freedom
    return np.log(squares) - 2.0 * np.log(freedom), slope


def _reml_curve(problem: Problem, log_penalty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the negative restricted log-likelihood, the variance profiled out, and its slope."""
    scaled = np.exp(log_penalty) * np.diag(problem.penalties[0])[:, None]
    kept = 1.0 / (1.0 + scaled)
    remaining = problem.signals**2 * (scaled * kept)
    squares = problem.unexplained + remaining.sum(axis=0)
    left = problem.scans - problem.fixed
    score = 0.5 * (left * np.log(squares) - np.sum(np.log(scaled * kept), axis=0))
    return score, 0.5 * (left * np.sum(remaining * kept, axis=0) / squares - kept.sum(axis=0))
