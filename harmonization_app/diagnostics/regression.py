"""Ordinary least squares of many features on one design, features with missing cells each on their own scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray

LEVERAGE_LIMIT = 1e-9
# Residual squares as a part of all squares, below which their difference is not to be trusted.
CLOSE_FIT = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """Coefficients and their standard errors [columns x features], residual squares and degrees [features].

    A feature whose scans do not determine the design has NaN throughout.
    """

    coefficients: FloatArray
    errors: FloatArray
    residual_squares: FloatArray
    degrees: FloatArray


def regress(design: FloatArray, values: FloatArray) -> Regression:
    """Return the regression of each column of `values` [scans x features] on `design` [scans x columns]."""
    features = values.shape[1]
    result = Regression(
        np.full((design.shape[1], features), np.nan),
        np.full((design.shape[1], features), np.nan),
        np.full(features, np.nan),
        np.full(features, np.nan),
    )
    incomplete = np.isnan(values).any(axis=0)
    complete = np.flatnonzero(~incomplete)
    if complete.size:
        _fill(result, complete, design, values if complete.size == features else values[:, complete])
    for column in np.flatnonzero(incomplete):
        seen = ~np.isnan(values[:, column])
        _fill(result, np.array([column]), design[seen], values[seen, column : column + 1])
    return result


def _fill(result: Regression, columns: IntArray, design: FloatArray, values: FloatArray) -> None:
    degrees = design.shape[0] - design.shape[1]
    if degrees < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return
    orthogonal, triangular = np.linalg.qr(design)
    centre = values.mean(axis=0)
    centred = values - centre
    projected = orthogonal.T @ centred
    coefficients = np.linalg.solve(triangular, projected)
    total = np.einsum("sf,sf->f", centred, centred)
    squares = total - np.einsum("cf,cf->f", projected, projected)
    # A fit this close leaves too few digits in the difference: take the residuals themselves.
    close = np.flatnonzero(squares < CLOSE_FIT * total)
    if close.size:
        residuals = centred[:, close] - orthogonal @ projected[:, close]
        squares[close] = np.einsum("sf,sf->f", residuals, residuals)
    # Every design here spans the constant, so the centring is put back as its least-squares coefficients.
    coefficients += np.linalg.solve(triangular, orthogonal.T @ np.ones(len(design)))[:, None] * centre
    inverse = np.linalg.solve(triangular, np.eye(design.shape[1]))
    spread = np.sqrt((inverse**2).sum(axis=1))
    result.coefficients[:, columns] = coefficients
    result.residual_squares[columns] = squares
    result.degrees[columns] = degrees
    result.errors[:, columns] = spread[:, None] * np.sqrt(squares / degrees)


@dataclass(frozen=True, slots=True, eq=False)
class ClusterWeights:
    """What turns residuals into scores by subject: weights [columns x scans] in `order`, where subjects start."""

    weights: FloatArray
    order: IntArray
    starts: IntArray
    degrees: int


def cluster_weights(design: FloatArray, own: slice, subjects: IntArray) -> ClusterWeights | None:
    """Return the weights of the columns `own` of a design of full rank; None with fewer subjects than columns.

    Residuals are adjusted within each subject by the inverse root of one less its leverage, so that errors are not too
    small with few subjects (Bell and McCaffrey, Surv Methodol 28:169 (2002)).
    """
    order = np.argsort(subjects, kind="stable")
    starts = np.flatnonzero(np.diff(subjects[order], prepend=-1))
    if len(starts) <= design.shape[1]:
        return None
    kept = design[order]
    basis = np.linalg.qr(kept)[0]
    weights = np.array(np.linalg.pinv(kept)[own], dtype=np.float64)
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        part = basis[start:stop]
        values, vectors = np.linalg.eigh(np.eye(stop - start) - part @ part.T)
        root = np.where(values > LEVERAGE_LIMIT, 1 / np.sqrt(np.maximum(values, LEVERAGE_LIMIT)), 0.0)
        weights[:, start:stop] = (weights[:, start:stop] @ vectors * root) @ vectors.T
    return ClusterWeights(np.asarray(weights), order, starts, len(starts) - design.shape[1])


def clustered_errors(
    design: FloatArray,
    values: FloatArray,
    fit: Regression,
    own: slice,
    subjects: IntArray,
    complete: ClusterWeights | None,
) -> tuple[FloatArray, FloatArray]:
    """Return errors clustered by subject of the columns `own` [columns x features], and degrees [features].

    `complete` are the weights of the whole design; features with missing cells take their own.
    """
    errors = np.full_like(fit.errors[own], np.nan)
    degrees = np.full_like(fit.degrees, np.nan)
    incomplete = np.isnan(values).any(axis=0)
    estimable = np.isfinite(fit.degrees)
    whole = np.flatnonzero(~incomplete & estimable)
    if whole.size and complete is not None:
        _cluster(errors, degrees, whole, design, values[:, whole], fit, complete)
    for column in np.flatnonzero(incomplete & estimable):
        seen = ~np.isnan(values[:, column])
        weights = cluster_weights(design[seen], own, subjects[seen])
        if weights is not None:
            at = np.array([column])
            _cluster(errors, degrees, at, design[seen], values[seen, column : column + 1], fit, weights)
    return errors, degrees


def _cluster(
    errors: FloatArray,
    degrees: FloatArray,
    columns: IntArray,
    design: FloatArray,
    values: FloatArray,
    fit: Regression,
    given: ClusterWeights,
) -> None:
    residuals = (values - design @ fit.coefficients[:, columns])[given.order]
    for row, weight in enumerate(given.weights):
        sums = np.add.reduceat(weight[:, None] * residuals, given.starts, axis=0)
        errors[row, columns] = np.sqrt((sums**2).sum(axis=0))
    degrees[columns] = given.degrees
