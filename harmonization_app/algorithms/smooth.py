"""Thin plate regression splines of one covariate: the low-rank smooths of Wood, J R Stat Soc B 65:95 (2003).

A smooth is a straight line plus `size - 2` penalized columns. The columns are the `size` eigenvectors of the
kernel |x - x'|^3 / 12 with the greatest eigenvalues, restricted to those combinations that are straight beyond
the data; the penalty is the integrated squared second derivative. The span and the penalty are those of
mgcv's s(x, bs="tp", k=size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from harmonization_app.algorithms.base import FloatArray

NULL_SPACE = 2
MAXIMUM_KNOTS = 2000
DENSE_KNOTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Smooth:
    """A smooth of one covariate.

    `knots` [knots] in the covariate's units, `centre` and `spread` standardize it, `weights` [knots x (size -
    2)] turn kernel values into penalized columns, `penalty` [(size - 2) x (size - 2)] is positive definite.
    """

    knots: FloatArray
    centre: float
    spread: float
    weights: FloatArray
    penalty: FloatArray

    def columns(self, values: FloatArray) -> FloatArray:
        """Return the penalized columns [scans x (size - 2)] at `values`; beyond the knots they are straight."""
        inside = (values - self.centre) / self.spread
        knots = (self.knots - self.centre) / self.spread
        distinct, position = np.unique(inside, return_inverse=True)
        return np.asarray((_kernel(distinct, knots) @ self.weights)[position])


def place_smooth(values: FloatArray, size: int) -> Smooth:
    """Return the smooth of `size` columns (the straight line's two among them) for the fitted `values`.

    All distinct values are knots, of more than 2,000 that many at equal ranks. Raises ValueError with fewer
    distinct values than columns.
    """
    knots = distinct_knots(values)
    if len(knots) < size:
        raise ValueError(f"{len(knots)} distinct values do not carry a smooth of {size} columns.")
    centre, spread = float(knots.mean()), float(knots.std())
    standard = (knots - centre) / spread
    kernel = _kernel(standard, standard)
    # With as many knots as columns there is nothing to leave out, and mgcv keeps the knots' own columns.
    vectors = np.eye(size) if len(knots) == size else _leading(kernel, size)
    straight = np.column_stack([np.ones_like(standard), standard])
    weights = vectors @ _straight_beyond(straight.T @ vectors)
    # Columns of unit root mean square, so that coefficients of all columns are alike in size.
    length = np.sqrt(np.mean((kernel @ weights) ** 2, axis=0))
    penalty = weights.T @ kernel @ weights / np.outer(length, length)
    return Smooth(knots, centre, spread, weights / length, (penalty + penalty.T) / 2.0)


def distinct_knots(values: FloatArray) -> FloatArray:
    """Return the sorted distinct values, thinned to 2,000 at equal ranks."""
    distinct = np.unique(values)
    if len(distinct) <= MAXIMUM_KNOTS:
        return distinct
    ranks = np.round(np.linspace(0, len(distinct) - 1, MAXIMUM_KNOTS)).astype(np.int64)
    return np.asarray(distinct[ranks])


def _straight_beyond(conditions: FloatArray) -> FloatArray:
    """Return the combinations [columns x (columns - 2)] that meet `conditions`, by reflections from the last."""
    reflected = scipy.linalg.qr(conditions[:, ::-1].T)[0]
    return np.asarray(reflected[::-1, ::-1][:, :-NULL_SPACE])


def _kernel(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.abs(left[:, None] - right) ** 3 / 12.0)


def _leading(kernel: FloatArray, size: int) -> FloatArray:
    """Return the eigenvectors of the `size` eigenvalues of greatest magnitude, in falling order of these."""
    if len(kernel) <= max(DENSE_KNOTS, 2 * size):
        values, vectors = scipy.linalg.eigh(kernel)
    else:
        # A fixed start makes the iteration repeatable; tolerance 0 asks for machine precision.
        start = np.ones(len(kernel)) / np.sqrt(len(kernel))
        values, vectors = scipy.sparse.linalg.eigsh(kernel, k=size, which="LM", v0=start, tol=0)
    kept = np.argsort(-np.abs(values), kind="stable")[:size]
    return np.asarray(vectors[:, kept[np.argsort(-values[kept], kind="stable")]])
