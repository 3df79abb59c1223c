"""How strongly smooths are penalized: generalized cross-validation or restricted likelihood, by feature.

Sources: Wood, Generalized Additive Models, 2nd ed. (2017), sections 5.4.2, 6.2.1 and 6.2.6; J R Stat Soc B 73:3
(2011). All works in coordinates in which the penalized columns, cleared of batches and unpenalized columns, are
orthonormal, so that a feature enters by a few numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg

from harmonization_app.algorithms.base import FloatArray, IntArray

Criterion = Literal["gcv", "reml"]
GRID_STEP = 0.25
# Beyond these the smooth is the straight line, or the unpenalized one, to within rounding.
LEAST_FREEDOM = 1e-10
BISECTIONS = 52


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What the choice of penalties needs of all features.

    `roots` are [columns x rank] by smooth: a root times its transpose is the penalty of the orthonormal columns; that
    of a single smooth is diagonal. `signals` [columns x features] are the projections of the values,
    `unexplained` [features] the residual squares without penalty, `variances` [features] those of the raw values
    (denominator scans), `fixed` the number of unpenalized columns with the batches.
    """

    roots: tuple[FloatArray, ...]
    signals: FloatArray
    unexplained: FloatArray
    variances: FloatArray
    scans: int
    fixed: int

    @property
    def ranks(self) -> FloatArray:
        return np.array([root.shape[1] for root in self.roots], dtype=np.float64)

    @property
    def strengths(self) -> FloatArray:
        """How much each column of a single smooth is penalized, [columns x 1]."""
        return np.asarray(np.diag(self.roots[0])[:, None] ** 2)

    def coefficients(self, log_penalties: FloatArray) -> FloatArray:
        """Return the penalized coefficients [columns x features] at `log_penalties` [smooths x features]."""
        if len(self.roots) == 1:
            return np.asarray(self.signals / (1.0 + np.exp(log_penalties) * self.strengths))
        found = np.empty_like(self.signals)
        for feature, own in enumerate(log_penalties.T):
            inverse = factorize(self.roots, own).inverse
            found[:, feature] = inverse @ (inverse.T @ self.signals[:, feature])
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """The inverse of identity plus penalties as `inverse` times its transpose, however large the penalties are.

    `shares` [smooths x columns x columns] are the penalties between the two factors; they and the identity's own
    share sum to the identity. `log_determinant` is that of identity plus penalties.
    """

    inverse: FloatArray
    shares: FloatArray
    log_determinant: float


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """A score at one point with its gradient [parameters] and Hessian; `variance` is that of the residuals."""

    score: float
    gradient: FloatArray
    hessian: FloatArray
    variance: float


def factorize(roots: tuple[FloatArray, ...], log_penalties: FloatArray) -> Factor:
    """Return the factor at one point, by the QR decomposition of the stacked roots and identity.

    Rows go in falling order of size and columns are pivoted, which keeps the digits of the small rows (Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002), section 19.4).
    """
    columns = len(roots[0])
    parts = [math.exp(0.5 * own) * root.T for own, root in zip(log_penalties, roots, strict=True)]
    stack = np.vstack([*parts, np.eye(columns)])
    order = np.argsort(-np.abs(stack).max(axis=1), kind="stable")
    orthonormal, triangle, pivots = scipy.linalg.qr(stack[order], mode="economic", pivoting=True)
    inverse = np.empty((columns, columns))
    inverse[pivots] = scipy.linalg.solve_triangular(triangle, np.eye(columns))
    rows = np.empty_like(orthonormal)
    rows[order] = orthonormal
    blocks = np.split(rows, np.cumsum([len(part) for part in parts]))[:-1]
    shares = np.stack([block.T @ block for block in blocks])
    return Factor(inverse, shares, 2.0 * float(np.log(np.abs(np.diag(triangle))).sum()))


def gcv(problem: Problem, feature: int, log_penalties: FloatArray) -> Derivatives:
    """Return scans * residual squares / (residual degrees of freedom)^2 by the logarithms of the penalties."""
    factor = factorize(problem.roots, log_penalties)
    inverse, shares = factor.inverse, factor.shares
    signal = problem.signals[:, feature]
    part = inverse.T @ signal
    lost = signal - inverse @ part
    pulled = inverse.T @ lost
    spread = inverse.T @ inverse
    moved = shares @ part
    squares = float(problem.unexplained[feature] + lost @ lost)
    slope = 2.0 * moved @ pulled
    gain = np.einsum("jab,ba->j", shares, spread)
    crossed = np.einsum("jab,kbc->jkac", shares, shares)
    crossed = crossed + crossed.transpose(1, 0, 2, 3)
    bend = 2.0 * (moved @ spread @ moved.T - crossed @ part @ pulled) + np.diag(slope)
    gain_bend = np.diag(gain) - np.einsum("jkab,ba->jk", crossed, spread)
    freedom = problem.scans - problem.fixed - float(np.trace(spread))
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
    factor = factorize(problem.roots, point[:-1])
    inverse, shares = factor.inverse, factor.shares
    signal = problem.signals[:, feature]
    part = inverse.T @ signal
    lost = signal - inverse @ part
    variance = math.exp(point[-1])
    squares = float(problem.unexplained[feature] + signal @ lost) / variance
    moved = shares @ part
    slope = moved @ part / variance
    traces = np.einsum("jaa->j", shares)
    left = problem.scans - fixed
    score = squares + left * (math.log(2.0 * math.pi) + point[-1])
    score += factor.log_determinant - float(problem.ranks @ point[:-1])
    bend = np.diag(slope + traces) - 2.0 * moved @ moved.T / variance
    bend -= np.einsum("jab,kba->jk", shares, shares)
    hessian = 0.5 * np.block([[bend, -slope[:, None]], [-slope[None, :], np.array([[squares]])]])
    gradient = 0.5 * np.append(slope + traces - problem.ranks, left - squares)
    freedom = problem.scans - problem.fixed - float(np.sum(inverse**2))
    residual = (problem.unexplained[feature] + lost @ lost) / freedom
    return Derivatives(0.5 * score, gradient, hessian, float(residual))


def gcv_many(problem: Problem, features: Sequence[int], points: Sequence[FloatArray]) -> list[Derivatives]:
    """Return `gcv` of each of `features` at its own point; those of a single smooth all at once."""
    if len(problem.roots) > 1:
        return [gcv(problem, feature, point) for feature, point in zip(features, points, strict=True)]
    log_penalties = np.concatenate(points)
    kept = 1.0 / (1.0 + np.exp(log_penalties) * problem.strengths)
    lost = np.exp(log_penalties) * problem.strengths * kept
    remaining = (problem.signals[:, features] * lost) ** 2
    squares = problem.unexplained[features] + remaining.sum(axis=0)
    slope = 2.0 * np.sum(remaining * kept, axis=0)
    bend = 2.0 * np.sum(remaining * kept * (2.0 * kept - lost), axis=0)
    freedom = problem.scans - problem.fixed - kept.sum(axis=0)
    gain = np.sum(kept * lost, axis=0)
    gain_bend = np.sum(kept * lost * (kept - lost), axis=0)
    score = problem.scans * squares / freedom**2
    gradient = score * (slope / squares - 2.0 * gain / freedom)
    hessian = bend / squares - (4.0 * slope * gain / squares + 2.0 * gain_bend) / freedom
    hessian = score * (hessian + 6.0 * gain**2 / freedom**2)
    parts = zip(
        score.tolist(),
        gradient[:, None],
        hessian[:, None, None],
        (squares / freedom).tolist(),
        strict=True,
    )
    return [Derivatives(*part) for part in parts]


def reml_many(
    problem: Problem, features: Sequence[int], points: Sequence[FloatArray], fixed: int
) -> list[Derivatives]:
    """Return `reml` of each of `features` at its own point; those of a single smooth all at once."""
    if len(problem.roots) > 1:
        return [reml(problem, feature, point, fixed) for feature, point in zip(features, points, strict=True)]
    log_penalties, log_variances = np.stack(points, axis=1)
    variances = np.exp(log_variances)
    kept = 1.0 / (1.0 + np.exp(log_penalties) * problem.strengths)
    lost = np.exp(log_penalties) * problem.strengths * kept
    signals = problem.signals[:, features] ** 2
    squares = (problem.unexplained[features] + np.sum(signals * lost, axis=0)) / variances
    slope = np.sum(signals * lost * kept, axis=0) / variances
    bend = np.sum(signals * lost * kept * (kept - lost), axis=0) / variances
    left = problem.scans - fixed
    score = 0.5 * (squares + left * (math.log(2.0 * math.pi) + log_variances) - np.log(lost).sum(axis=0))
    score += 0.5 * float(np.log(problem.strengths).sum())
    gradient = 0.5 * np.stack([slope - kept.sum(axis=0), left - squares], axis=1)
    hessian = np.empty((len(features), 2, 2))
    hessian[:, 0, 0] = 0.5 * (bend + np.sum(kept * lost, axis=0))
    hessian[:, 0, 1] = hessian[:, 1, 0] = -0.5 * slope
    hessian[:, 1, 1] = 0.5 * squares
    residual = problem.unexplained[features] + np.sum(signals * lost**2, axis=0)
    variance = residual / (problem.scans - problem.fixed - kept.sum(axis=0))
    parts = zip(score.tolist(), gradient, hessian, variance.tolist(), strict=True)
    return [Derivatives(*part) for part in parts]


def least_score(problem: Problem, criterion: Criterion) -> FloatArray:
    """Return the logarithms of the penalties [1 x features] at the least score, for a single smooth.

    The two lowest of the local minima on a grid of quarter steps over all penalties that make a difference, each
    followed by bisection of the slope between its neighbours to the last bit (at an end of the grid, that end): which
    of two nearly equal ones is lower is not for the grid to say.
    """
    curve = _gcv_curve if criterion == "gcv" else _reml_curve
    low = math.log(LEAST_FREEDOM) - math.log(float(np.sum(problem.strengths)))
    high = math.log(float(np.sum(1.0 / problem.strengths))) - math.log(LEAST_FREEDOM)
    grid = np.arange(low, high + GRID_STEP, GRID_STEP)
    found = [_at_bottom(problem, curve, grid, place) for place in _two_lowest(problem, curve, grid)]
    scores = [curve(problem, point)[0] for point in found]
    return np.where(scores[0] <= scores[1], *found)[None, :]


Curve = Callable[[Problem, FloatArray], tuple[FloatArray, FloatArray]]


def _two_lowest(problem: Problem, curve: Curve, grid: FloatArray) -> IntArray:
    """Return the places on the grid of the two lowest local minima [2 x features], the lower first."""
    features = problem.signals.shape[1]
    beyond = np.full(features, np.inf)
    lowest, places = np.full((2, features), np.inf), np.zeros((2, features), dtype=np.int64)
    before, here = beyond, curve(problem, np.full(features, grid[0]))[0]
    for index, point in enumerate([*grid[1:].tolist(), None]):
        following = beyond if point is None else curve(problem, np.full(features, point))[0]
        scores = np.where((here <= before) & (here < following), here, np.inf)
        first = scores < lowest[0]
        second = ~first & (scores < lowest[1])
        lowest[1, first], places[1, first] = lowest[0, first], places[0, first]
        lowest[0, first], places[0, first] = scores[first], index
        lowest[1, second], places[1, second] = scores[second], index
        before, here = here, following
    return places


def _at_bottom(problem: Problem, curve: Curve, grid: FloatArray, place: IntArray) -> FloatArray:
    """Return the points [features] of no slope between the neighbours of places on the grid."""
    left, right = grid[np.maximum(place - 1, 0)], grid[np.minimum(place + 1, len(grid) - 1)]
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        falling = curve(problem, middle)[1] < 0
        left, right = np.where(falling, middle, left), np.where(falling, right, middle)
    at_end = (place == 0) | (place == len(grid) - 1)
    return np.where(at_end, grid[place], 0.5 * (left + right))


def _gcv_curve(problem: Problem, log_penalty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return logarithm of the GCV score and its slope, [features] each."""
    kept = 1.0 / (1.0 + np.exp(log_penalty) * problem.strengths)
    lost = 1.0 - kept
    remaining = (problem.signals * lost) ** 2
    squares = problem.unexplained + remaining.sum(axis=0)
    freedom = problem.scans - problem.fixed - kept.sum(axis=0)
    slope = 2.0 * np.sum(remaining * kept, axis=0) / squares - 2.0 * np.sum(lost * kept, axis=0) / freedom
    return np.log(squares) - 2.0 * np.log(freedom), slope


def _reml_curve(problem: Problem, log_penalty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the negative restricted log-likelihood, the variance profiled out, and its slope."""
    scaled = np.exp(log_penalty) * problem.strengths
    kept = 1.0 / (1.0 + scaled)
    remaining = problem.signals**2 * (scaled * kept)
    squares = problem.unexplained + remaining.sum(axis=0)
    left = problem.scans - problem.fixed
    score = 0.5 * (left * np.log(squares) - np.sum(np.log(scaled * kept), axis=0))
    return score, 0.5 * (left * np.sum(remaining * kept, axis=0) / squares - kept.sum(axis=0))
