"""The penalties at which R's mgcv 1.8 stops: its starting values, its steps and its stopping rules.

mgcv stops a search once a step changes the score little, so that its penalties lie near a least score, now and
then at a local one, and depend on the units of the values in the last digits. A result that shall equal mgcv's
must take the same steps: for GCV those of Wood, J Am Stat Assoc 99:673 (2004), for REML those of Wood, J R Stat
Soc B 73:3 (2011), with the constants of mgcv 1.8-41. Of 34 features of a published case and both criteria, the
logarithms of all penalties agree with mgcv's within 1e-9 and the numbers of steps are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.algorithms.penalty import Derivatives, Problem, factorize, gcv, reml
from harmonization_app.algorithms.smooth import NULL_SPACE, Smooth

EPSILON = float(np.finfo(np.float64).eps)
LONGEST_STEP = 5.0
START_SHARE = 0.4

GCV_TOLERANCE = 1e-7
GCV_FLAT = 1e-4
GCV_HALVINGS = 15
GCV_STEPS = 400
GCV_PASSES = 200

REML_TOLERANCE = 1e-6
REML_LONGEST_DESCENT = 2.0
REML_HALVINGS = 30
REML_STEPS = 200
REML_MISFIT = 0.8

Evaluate = Callable[[FloatArray], Derivatives]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where a search begins: `log_penalties` [smooths], and what the REML score needs to be mgcv's own.

    `dependent` columns of the design that mgcv counts as unpenalized although others determine them;
    `log_constant` what the columns' units add to the score, which the stopping rule looks at.
    """

    log_penalties: FloatArray
    dependent: int
    log_constant: float


def place_start(
    smooths: Sequence[Smooth],
    values: Sequence[FloatArray],
    unpenalized: FloatArray,
    problem: Problem,
    dependent: int,
) -> Start:
    """Return the start of every feature for `smooths` of covariate `values` [scans each].

    `unpenalized` [scans x columns] are batch indicators and covariates, without the smooths' straight lines.
    """
    parts = [_constrained(smooth, own) for smooth, own in zip(smooths, values, strict=True)]
    log_penalties = _initial(parts)
    columns = np.hstack([unpenalized, *(part[0] for part in parts)])
    inner = columns.T @ columns
    at, log_ranges = unpenalized.shape[1], 0.0
    for own, penalty in parts:
        inner[at : at + own.shape[1], at : at + own.shape[1]] += penalty
        at += own.shape[1]
        log_ranges += float(np.log(np.linalg.eigvalsh(penalty)[1:]).sum())
    orthonormal = factorize(problem.roots, np.zeros(len(problem.roots)))
    log_constant = float(np.linalg.slogdet(inner)[1]) - log_ranges - orthonormal.log_determinant
    return Start(log_penalties, dependent, 0.5 * log_constant)


def gcv_search(problem: Problem, start: Start) -> FloatArray:
    """Return the logarithms of the penalties [smooths x features] by GCV."""
    found = np.empty((len(problem.roots), problem.signals.shape[1]))
    for feature in range(found.shape[1]):

        def evaluate(point: FloatArray, feature: int = feature) -> Derivatives:
            return gcv(problem, feature, point)

        point = _gcv_descent(evaluate, start.log_penalties)
        for _ in range(GCV_PASSES):
            end = evaluate(point)
            flat = np.abs(end.gradient) < GCV_FLAT * (1.0 + abs(end.score))
            if flat.all():
                break
            point = _gcv_descent(evaluate, np.where(flat, start.log_penalties, point))
            if abs(evaluate(point).score - end.score) < GCV_TOLERANCE * end.score:
                break
        found[:, feature] = point
    return found


def reml_search(problem: Problem, start: Start) -> FloatArray:
    """Return the logarithms of the penalties [smooths x features] by REML, the variance searched with them."""
    found = np.empty((len(problem.roots), problem.signals.shape[1]))
    fixed = problem.fixed + start.dependent
    for feature in range(found.shape[1]):

        def evaluate(point: FloatArray, feature: int = feature) -> Derivatives:
            own = reml(problem, feature, point, fixed)
            return Derivatives(own.score + start.log_constant, own.gradient, own.hessian, own.variance)

        point = np.append(start.log_penalties, math.log(problem.variances[feature] / 10.0))
        found[:, feature] = _reml_descent(evaluate, point)[:-1]
    return found


def _constrained(smooth: Smooth, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return columns [scans x (size - 1)] that sum to zero, and their penalty, in mgcv's parameters."""
    line = values - values.mean()
    columns = np.column_stack([smooth.columns(values), np.ones_like(line), line])
    length = np.sqrt(np.mean(columns**2, axis=0))
    columns = columns / length
    size = columns.shape[1]
    penalty = np.zeros((size, size))
    own = length[: size - NULL_SPACE]
    penalty[: len(own), : len(own)] = smooth.penalty / np.outer(own, own)
    sums = columns.sum(axis=0)
    normal = sums.copy()
    normal[0] += math.copysign(float(np.linalg.norm(sums)), sums[0])
    reflection = np.eye(size) - 2.0 * np.outer(normal, normal) / (normal @ normal)
    penalty = reflection @ penalty @ reflection
    return (columns @ reflection)[:, 1:], penalty[1:, 1:]


def _initial(parts: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Return penalties that leave each column, roughly, 0.4 of its freedom, on a scale of factors of ten."""
    ratios, squares, weights = [], [], []
    for columns, penalty in parts:
        size, own = np.abs(penalty), np.diag(penalty)
        least = EPSILON**0.8 * size.max()
        used = (size.mean(axis=0) > least) & (own > least)
        squares.append(np.sum(columns**2, axis=0)[used])
        ratios.append(squares[-1].mean() / own[used].mean())
        weights.append(ratios[-1] * own[used])
    square, weight, factor = np.concatenate(squares), np.concatenate(weights), 1.0

    def share() -> float:
        return float(np.mean(square / (square + factor * weight)))

    while share() > START_SHARE:
        factor *= 10.0
    while share() < START_SHARE:
        factor /= 10.0
    return np.log(np.array(ratios) * factor)


def _gcv_descent(evaluate: Evaluate, start: FloatArray) -> FloatArray:
    """Return the end of Newton steps from `start`, of steepest descent where the score bends down."""
    point, here = start, evaluate(start)
    best, gain = here.score, math.inf
    for step in range(2, GCV_STEPS + 1):
        moved = _gcv_step(evaluate, point, here, best)
        if moved is not None:
            point, gain = moved[0], best - moved[1]
            best = moved[1]
        steep = float(np.linalg.norm(here.gradient)) > GCV_TOLERANCE ** (1 / 3) * (1.0 + abs(best))
        settled = moved is None or not (gain > GCV_TOLERANCE * (1.0 + best) or steep)
        here = evaluate(point)
        if step > 3 and settled:
            break
    for smooth, slope in enumerate(here.gradient):
        stride = np.zeros_like(point)
        stride[smooth] = 2.0 if slope < 0 else -2.0
        for _ in range(5):
            score = evaluate(point + stride).score
            if score >= best:
                break
            point, best = point + stride, score
    return point


def _gcv_step(
    evaluate: Evaluate, point: FloatArray, here: Derivatives, best: float
) -> tuple[FloatArray, float] | None:
    """Return the next point and its score, lower than `best`; None when 15 halvings find none."""
    descent = -here.gradient / np.abs(here.gradient).max()
    values, vectors = np.linalg.eigh(here.hessian)
    newton = not bool(np.any(values < 0))
    step = descent
    if newton:
        step = _limited(-vectors @ ((vectors.T @ here.gradient) / values))
    for attempt in range(1, GCV_HALVINGS):
        if attempt == 4 and newton:
            step = descent
        score = evaluate(point + step).score
        if score < best:
            return point + step, score
        step = step / 2.0
    return None


def _limited(step: FloatArray) -> FloatArray:
    return step * min(1.0, LONGEST_STEP / float(np.abs(step).max()))


@dataclass(slots=True, eq=False)
class _Descent:
    """A REML search under way: point, derivatives there, the score before and the scale of the tolerances."""

    evaluate: Evaluate
    point: FloatArray
    here: Derivatives
    before: float
    scale: float
    step: int = 0

    def move(self, point: FloatArray) -> None:
        self.before, self.point, self.here = self.here.score, point, self.evaluate(point)

    def trial(self, step: FloatArray) -> tuple[float, float]:
        """Return the score after `step`, and how far the quadratic model misses its change (1: wholly)."""
        score = self.evaluate(self.point + step).score
        expected = float(self.here.gradient @ step + 0.5 * step @ self.here.hessian @ step)
        change = score - self.here.score
        greatest = max(abs(expected), abs(change)) + self.scale * REML_TOLERANCE
        return score, abs(expected - change) / greatest


def _reml_descent(evaluate: Evaluate, start: FloatArray) -> FloatArray:
    """Return the end of Newton steps from `start`, each held against the quadratic model it rests on."""
    here = evaluate(start)
    walk = _Descent(evaluate, start, here, here.score, _tolerance_scale(here))
    active = np.abs(here.gradient) > walk.scale * REML_TOLERANCE
    for walk.step in range(1, REML_STEPS + 1):
        if not active.any():
            greatest = np.abs(walk.here.gradient)
            active = greatest == greatest.max() if walk.step > 1 else np.ones_like(active)
        step, definite, bending = _newton_step(walk, active)
        stuck = _reml_step(walk, step, definite)
        walk.scale = _tolerance_scale(walk.here)
        gradient, curvature = np.abs(walk.here.gradient), np.abs(np.diag(walk.here.hessian))
        active = np.maximum(gradient, curvature) > 0.1 * walk.scale * REML_TOLERANCE
        settled = not bending and not np.any(gradient > 5.0 * walk.scale * REML_TOLERANCE)
        if abs(walk.before - walk.here.score) > walk.scale * REML_TOLERANCE:
            active |= settled
            settled = False
        if settled or stuck:
            break
    return walk.point


def _tolerance_scale(here: Derivatives) -> float:
    return abs(math.log(here.variance)) + abs(here.score)


def _newton_step(walk: _Descent, active: npt.NDArray[np.bool_]) -> tuple[FloatArray, bool, bool]:
    """Return the step in the `active` parameters, whether the Hessian is positive, whether it bends down."""
    values, vectors = np.linalg.eigh(walk.here.hessian[np.ix_(active, active)])
    bending = bool(np.any(-values > abs(values[-1]) * math.sqrt(EPSILON)))
    if bending and len(values) == 1:
        bending = bool(values[0] < -walk.scale * math.sqrt(EPSILON))
    least = float(np.abs(values).max()) * EPSILON**0.7
    definite = not bool(np.any((values < 0) | (np.abs(values) < least)))
    step = np.zeros_like(walk.point)
    lengths = np.maximum(np.abs(values), least)
    step[active] = -vectors @ ((vectors.T @ walk.here.gradient[active]) / lengths)
    return _limited(step), definite, bending


def _reml_step(walk: _Descent, step: FloatArray, definite: bool) -> bool:
    """Move by `step`, shortened or turned downhill where it does not serve; return whether none did."""
    score, misfit = walk.trial(step)
    served = score < walk.here.score and misfit < REML_MISFIT
    halvings, turned = 0, False
    while not served and halvings < REML_HALVINGS:
        if halvings == 3 and walk.step < 10:
            length, turned = min(float(np.linalg.norm(step)), REML_LONGEST_DESCENT), True
            step = -walk.here.gradient * (length / float(np.linalg.norm(walk.here.gradient)))
        else:
            step = step / 2.0
        score, misfit = walk.trial(step)
        served = score < walk.here.score and (halvings > 4 or misfit < REML_MISFIT)
        halvings += not served
    if definite or turned:
        if served:
            walk.move(walk.point + step)
    else:
        walk.move(walk.point + _better_of(walk, step, score))
    return halvings == REML_HALVINGS


def _better_of(walk: _Descent, step: FloatArray, score: float) -> FloatArray:
    """Return `step` or, where its score is lower, the best halving of a step of steepest descent."""
    descent = -2.0 * walk.here.gradient / np.abs(walk.here.gradient).max()
    best, chosen = math.inf, descent
    for _ in range(40):
        descent = descent / 2.0
        own, misfit = walk.trial(descent)
        if math.isinf(best) or (own <= best and misfit < REML_MISFIT):
            best, chosen = own, descent
        if best < walk.here.score and own > best:
            break
    return chosen if best < score else step
