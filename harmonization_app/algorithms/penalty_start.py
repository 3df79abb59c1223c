"""Where mgcv 1.8 begins its search for penalties: in its own parameters of each smooth, by its own rule of thumb."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.algorithms.penalty import Problem, factorize
from harmonization_app.algorithms.smooth import NULL_SPACE, Smooth

EPSILON = float(np.finfo(np.float64).eps)
START_SHARE = 0.4


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
