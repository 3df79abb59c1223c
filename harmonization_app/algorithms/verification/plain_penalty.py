"""Penalties of smooths searched a second time, on the whole design of batches, covariates and smooths together.

A feature's score and its derivatives come from the orthonormal whole design, nothing eliminated beforehand (Wood,
Generalized Additive Models, 2nd ed. (2017), chapter 6); the steps are those of mgcv 1.8-41, or a bracketed root.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.optimize import brentq

Array = npt.NDArray[np.float64]
# Score, gradient, Hessian and residual variance at a point.
Look = tuple[float, Array, Array, float]
Score = Callable[[Array], Look]


@dataclass(frozen=True, slots=True, eq=False)
class WholeDesign:
    """A design [scans x columns] made orthonormal, `columns`; what turns its weights `back` into coefficients; the
    penalties of its columns; the logarithm of the determinant of its cross product; what of the REML score does not
    depend on the values: `log_penalties`, the penalties' own; `ranks` of the penalties, and `surplus` columns counted
    among the unpenalized that others determine.
    """

    columns: Array
    back: Array
    penalties: tuple[Array, ...]
    ranks: tuple[int, ...]
    log_size: float
    log_penalties: float
    surplus: int

    @classmethod
    def of(cls, design: Array, penalties: list[Array], ranks: tuple[int, ...], surplus: int) -> WholeDesign:
        """Return the design with axes along which unpenalized and penalized columns part."""
        columns, triangle = np.linalg.qr(design)
        back = np.linalg.inv(triangle)
        turned = [back.T @ own @ back for own in penalties]
        axes = np.linalg.eigh(sum(own / np.trace(own) for own in turned))[1]
        free = np.arange(len(axes)) < len(axes) - sum(ranks)
        turned = [axes.T @ own @ axes for own in turned]
        for own in turned:
            own[free], own[:, free] = 0.0, 0.0
        logs = [
            np.log(np.linalg.eigvalsh(own)[-rank:]).sum() for own, rank in zip(penalties, ranks, strict=True)
        ]
        size = float(2 * np.log(np.abs(np.diag(triangle))).sum())
        return cls(columns @ axes, back @ axes, tuple(turned), ranks, size, float(sum(logs)), surplus)

    @property
    def unpenalized(self) -> int:
        return self.columns.shape[1] - sum(self.ranks)


class Penalized:
    """Penalized least squares of one feature's `values` on a whole design."""

    def __init__(self, values: Array, design: WholeDesign) -> None:
        self.values, self.design = values, design
        self.shares = design.columns.T @ values
        self.rest = float(np.sum((values - design.columns @ self.shares) ** 2))

    def coefficients(self, logs: Array) -> Array:
        """Return the coefficients of the design's own columns at the logarithms of the penalties."""
        parts = zip(logs, self.design.penalties, self.design.ranks, strict=True)
        roots = [_root(math.exp(own) * penalty, rank) for own, penalty, rank in parts]
        rows = np.vstack([np.eye(len(self.shares)), *roots])
        values = np.concatenate([self.shares, np.zeros(len(rows) - len(self.shares))])
        return np.asarray(self.design.back @ np.linalg.lstsq(rows, values, rcond=None)[0])

    def gcv(self) -> Score:
        """Return the GCV score as a function of the logarithms of the penalties.

        Penalties enter by their roots: their sum would lose the digits of the smaller one where one smooth is straight.
        """
        shares, rest, scans = self.shares, self.rest, len(self.values)
        parts = zip(self.design.penalties, self.design.ranks, strict=True)
        roots = [_root(penalty, rank) for penalty, rank in parts]

        def look(logs: Array) -> Look:
            top, pulls = _split(
                len(shares), [math.exp(own / 2) * r for own, r in zip(logs, roots, strict=True)]
            )
            weights = top.T @ shares
            turns = [pull @ weights for pull in pulls]
            whole = np.sum(turns, axis=0)
            squares = rest + float(np.sum((shares - top @ weights) ** 2))
            freedom = scans - float(np.sum(top**2))
            first = np.array([2 * whole @ turn for turn in turns])
            inner = top.T @ top
            gained = np.array([float(np.trace(inner @ pull)) for pull in pulls])
            size = len(roots)
            second, lost = np.zeros((size, size)), np.zeros((size, size))
            for j, k in np.ndindex(size, size):
                bend = pulls[k] @ turns[j] + pulls[j] @ turns[k] - (j == k) * turns[j]
                second[j, k] = 2 * turns[j] @ inner @ turns[k] - 2 * whole @ bend
                both = float(np.trace(inner @ pulls[j] @ pulls[k]))
                lost[j, k] = (j == k) * gained[j] - 2 * both
            cross = np.outer(first, gained) + np.outer(gained, first)
            gradient = scans * (first / freedom**2 - 2 * squares * gained / freedom**3)
            hessian = scans * (second / freedom**2 - 2 * (cross + squares * lost) / freedom**3)
            hessian += 6 * scans * squares * np.outer(gained, gained) / freedom**4
            return scans * squares / freedom**2, gradient, hessian, squares / freedom

        return look

    def reml(self) -> Score:
        """Return the negative restricted log-likelihood by the logarithms of penalties and variance (last)."""
        shares, penalties, rest, scans = self.shares, self.design.penalties, self.rest, len(self.values)
        ranks, left = self.design.ranks, scans - self.design.unpenalized - self.design.surplus
        constant = self.design.log_size - self.design.log_penalties

        def look(point: Array) -> Look:
            logs, variance = point[:-1], math.exp(point[-1])
            scaled = [math.exp(own) * penalty for own, penalty in zip(logs, penalties, strict=True)]
            inner = np.eye(len(shares)) + sum(scaled)
            inverse = _inverse(inner)
            kept = inverse @ shares
            size = len(scaled)
            squares = rest + float(shares @ (shares - kept))
            score = squares / (2 * variance) + left / 2 * math.log(2 * math.pi * variance)
            score += 0.5 * (np.linalg.slogdet(inner)[1] + constant - np.dot(ranks, logs))
            roughness = np.array([kept @ own @ kept for own in scaled]) / variance
            traces = np.array([float(np.trace(inverse @ own)) for own in scaled])
            gradient = np.append(roughness + traces - ranks, left - squares / variance) / 2
            hessian = np.zeros((size + 1, size + 1))
            for j, k in np.ndindex(size, size):
                hessian[j, k] = (j == k) * (roughness[j] + traces[j])
                hessian[j, k] -= 2 * kept @ scaled[j] @ inverse @ scaled[k] @ kept / variance
                hessian[j, k] -= float(np.trace(inverse @ scaled[j] @ inverse @ scaled[k]))
            hessian[:size, size] = hessian[size, :size] = -roughness
            hessian[size, size] = squares / variance
            residual = rest + float(np.sum((shares - kept) ** 2))
            return score, gradient, hessian / 2, residual / (scans - float(np.trace(inverse)))

        return look


def least(problem: Penalized, criterion: str) -> Array:
    """Return the logarithm of the one penalty at the least score, by a grid and bracketed roots of the slope."""
    score = problem.gcv()
    if criterion == "reml":
        both = problem.reml()

        def score(logs: Array) -> Look:
            # At the best variance for this penalty the squares over the variance equal what is left of the scans.
            start = both(np.append(logs, 0.0))
            spare = len(problem.values) - problem.design.unpenalized - problem.design.surplus
            return both(np.append(logs, math.log(2 * start[2][-1, -1] / spare)))

    grid = np.arange(-28.0, 32.0, 0.25)
    scores = [math.inf, *(score(np.array([point]))[0] for point in grid), math.inf]
    valleys = [
        at for at in range(len(grid)) if scores[at + 1] <= scores[at] and scores[at + 1] < scores[at + 2]
    ]
    lowest = sorted(valleys, key=lambda at: scores[at + 1])[:2]
    bottoms = [_bottom(score, grid, at) for at in lowest]
    return min(bottoms, key=lambda point: score(point)[0])


def _bottom(score: Score, grid: Array, at: int) -> Array:
    """Return the point of no slope between the neighbours of a point of the grid; that point where there is none."""
    if at in (0, len(grid) - 1):
        return grid[at : at + 1]
    low, high = grid[at - 1], grid[at + 1]
    slopes = [score(np.array([point]))[1][0] for point in (low, high)]
    if slopes[0] * slopes[1] >= 0:
        return grid[at : at + 1]
    return np.array([brentq(lambda point: score(np.array([point]))[1][0], low, high, xtol=1e-13)])


def gcv_steps(score: Score, start: Array) -> Array:
    """Return where mgcv's search by GCV ends: Newton steps, then strides of two while the score falls.

    A slope of nothing but rounding does not say which way to stride: both are tried, and the lower taken.
    """
    point = start
    best, gradient, hessian, _ = score(point)
    gain, count = 1e10, 1
    while True:
        count += 1
        level = not np.any(gradient)
        downhill = -gradient / (np.max(np.abs(gradient)) or 1.0)
        bends_up = not level and bool(np.all(np.linalg.eigvalsh(hessian) >= 0))
        step = -np.linalg.solve(hessian, gradient) if bends_up else downhill
        step = step / max(1.0, np.max(np.abs(step)) / 5.0) if bends_up else step
        found = False
        for attempt in range(0 if level else 14):
            step = downhill if attempt == 3 and bends_up else step
            value = score(point + step)[0]
            if value - best < 1e-14 * best:
                point, gain, best, found = point + step, best - value, value, True
                break
            step = step / 2
        even = np.linalg.norm(gradient) <= 1e-7 ** (1 / 3) * (1 + abs(best))
        _, gradient, hessian, _ = score(point)
        if count > 3 and (not found or (even and gain <= 1e-7 * (1 + best))):
            break
    for axis in range(len(point)):
        stride = np.eye(len(point))[axis] * (2.0 if gradient[axis] < 0 else -2.0)
        if abs(gradient[axis]) <= 1e-12 * best and score(point - stride)[0] < score(point + stride)[0]:
            stride = -stride
        for _ in range(5):
            value = score(point + stride)[0]
            if value - best >= -1e-14 * best:
                break
            point, best = point + stride, value
    return point


def reml_steps(score: Score, start: Array) -> Array:
    """Return where mgcv's search by REML ends: logarithms of the penalties and, last, of the variance."""
    point, look = start, score(start)
    scale = abs(math.log(look[3])) + abs(look[0])
    free = np.abs(look[1]) > 1e-6 * scale
    free = free if free.any() else np.ones(len(point), dtype=bool)
    for count in range(1, 201):
        if not free.any():
            free = np.abs(look[1]) == np.abs(look[1]).max()
        before = look[0]
        following, definite, bends_down, stuck = _reml_step(score, point, look, free, scale, count)
        if following is not None:
            point, look = following, score(following)
        scale = abs(math.log(look[3])) + abs(look[0])
        gradient, curvature = np.abs(look[1]), np.abs(np.diag(look[2]))
        free = (gradient > 1e-7 * scale) | (curvature > 1e-7 * scale)
        settled = not bends_down and gradient.max() <= 5e-6 * scale
        if abs(before - look[0]) > 1e-6 * scale:
            free = np.ones_like(free) if settled else free
            settled = False
        if settled or stuck:
            break
    return point


def _reml_step(
    score: Score, point: Array, look: Look, free: npt.NDArray[np.bool_], scale: float, count: int
) -> tuple[Array | None, bool, bool, bool]:
    """Return the next point (None: stay), whether the Hessian is positive and bends down, whether no step served."""
    value, gradient, hessian, _ = look
    lengths, axes = np.linalg.eigh(hessian[np.ix_(free, free)])
    top, tiny = float(np.max(np.abs(lengths))), float(np.finfo(float).eps)
    limit = scale if len(lengths) == 1 else abs(lengths[-1])
    bends_down = bool(np.any(-lengths > limit * tiny**0.5))
    definite = bool(np.all(lengths >= top * tiny**0.7))
    step = np.zeros(len(point))
    step[free] = -axes @ (axes.T @ gradient[free] / np.maximum(np.abs(lengths), top * tiny**0.7))
    step = step / max(1.0, np.max(np.abs(step)) / 5.0)

    def tried(step: Array) -> tuple[float, bool]:
        change = score(point + step)[0] - value - 1e-14 * scale
        model = float(gradient @ step + step @ hessian @ step / 2)
        return change, abs(model - change) < 0.8 * (max(abs(model), abs(change)) + 1e-6 * scale)

    change, close = tried(step)
    tries, turned = 0, False
    while not (change < 0 and close) and tries < 30:
        if tries == 3 and count < 10:
            turned = True
            step = -gradient / (np.linalg.norm(gradient) or 1.0) * min(np.linalg.norm(step), 2.0)
        else:
            step = step / 2
        change, close = tried(step)
        close = close or tries > 4
        tries += not (change < 0 and close)
    if definite or turned:
        return (point + step if change < 0 and close else None), definite, bends_down, tries == 30
    chosen, lowest = _downhill(tried, gradient)
    return point + (chosen if lowest < change else step), definite, bends_down, tries == 30


def _downhill(tried: Callable[[Array], tuple[float, bool]], gradient: Array) -> tuple[Array, float]:
    """Return the best halving of a step downhill, and the change of the score it brings."""
    step = -gradient / (np.max(np.abs(gradient)) or 1.0)
    chosen, lowest = step, tried(step)[0]
    for _ in range(39):
        if lowest < 0 and tried(step)[0] > lowest:
            break
        step = step / 2
        change, close = tried(step)
        if change <= lowest and close:
            chosen, lowest = step, change
    return chosen, lowest


def _inverse(inner: Array) -> Array:
    """Return the inverse of a matrix whose rows differ much in size."""
    roots = 1 / np.sqrt(np.diag(inner))
    return np.asarray(roots[:, None] * np.linalg.inv(roots[:, None] * inner * roots) * roots)


def _split(size: int, roots: list[Array]) -> tuple[Array, list[Array]]:
    """Return, of the orthonormal columns of an identity over `roots`, the identity's rows and each root's squared.

    The identity's rows times their transpose are the inverse of identity plus penalties. Rows in falling order of size,
    columns pivoted: the small rows keep their digits (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.
    (2002), section 19.4).
    """
    stack = np.vstack([np.eye(size), *roots])
    order = np.argsort(-np.abs(stack).max(axis=1), kind="stable")
    columns = np.empty_like(stack)
    columns[order] = scipy.linalg.qr(stack[order], mode="economic", pivoting=True)[0]
    own = np.split(columns, np.cumsum([size, *(len(root) for root in roots[:-1])]))
    return own[0], [part.T @ part for part in own[1:]]


def _root(penalty: Array, rank: int) -> Array:
    """Return rows [rank x columns] whose cross product is `penalty`."""
    values, vectors = np.linalg.eigh(penalty)
    return np.asarray(np.sqrt(values[-rank:, None]) * vectors[:, -rank:].T)
