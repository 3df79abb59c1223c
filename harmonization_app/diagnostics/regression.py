"""Ordinary least squares of many features on one design, features with missing cells each on their own scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.diagnostics.subjects import Subjects


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
    coefficients = np.linalg.solve(triangular, orthogonal.T @ (values - centre))
    residuals = values - centre - design @ coefficients
    squares = np.einsum("sf,sf->f", residuals, residuals)
    # Every design here spans the constant, so the centring is put back as its least-squares coefficients.
    coefficients += np.linalg.solve(triangular, orthogonal.T @ np.ones(len(design)))[:, None] * centre
    inverse = np.linalg.solve(triangular, np.eye(design.shape[1]))
    spread = np.sqrt((inverse**2).sum(axis=1))
    result.coefficients[:, columns] = coefficients
    result.residual_squares[columns] = squares
    result.degrees[columns] = degrees
    result.errors[:, columns] = spread[:, None] * np.sqrt(squares / degrees)


def regress_by_subject(
    design: FloatArray, values: FloatArray, fit: Regression, own: slice, subjects: Subjects
) -> tuple[FloatArray, FloatArray]:
    """Return errors clustered by subject of the columns `own` [columns x features], and degrees [features]."""
    errors = np.full_like(fit.errors[own], np.nan)
    degrees = np.full_like(fit.degrees, np.nan)
    incomplete = np.isnan(values).any(axis=0)
    groups = [np.flatnonzero(~incomplete), *(np.array([i]) for i in np.flatnonzero(incomplete))]
    for columns in groups:
        estimable = columns[np.isfinite(fit.degrees[columns])]
        if not estimable.size:
            continue
        seen = ~np.isnan(values[:, estimable[0]])
        count = len(np.unique(subjects.codes[seen]))
        scans, width = int(seen.sum()), design.shape[1]
        if count <= width:
            continue
        order = np.argsort(subjects.codes[seen], kind="stable")
        starts = np.flatnonzero(np.diff(subjects.codes[seen][order], prepend=-1))
        kept = design[seen][order]
        residuals = values[np.ix_(seen, estimable)][order] - kept @ fit.coefficients[:, estimable]
        weights = np.linalg.pinv(kept)[own]
        factor = count / (count - 1) * (scans - 1) / (scans - width)
        for row, weight in enumerate(weights):
            sums = np.add.reduceat(weight[:, None] * residuals, starts, axis=0)
            errors[row, estimable] = np.sqrt(factor * (sums**2).sum(axis=0))
        degrees[estimable] = count - width
    return errors, degrees
