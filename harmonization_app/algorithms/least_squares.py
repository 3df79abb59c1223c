"""Least-squares summaries of all complete features, by batch, in one pass over the data.

The batch indicators are eliminated from the least squares first (Frisch-Waugh-Lovell): covariates and values are
centred within batches, so only the covariates' own columns are solved for. Of every batch the pass keeps the mean,
the centred sum of squares and the products with an orthonormal basis of the centred covariates; coefficients and
residual squares follow from those without a second look at the values. Work goes by chunks (one batch, a block of
features) that fit the second-level cache; nothing of the size of the data is allocated but the result. Model: Johnson,
Li, Rabinovic, Biostatistics 8:118 (2007); Fortin et al., NeuroImage 161:149 (2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import BoolArray, FloatArray, IntArray

BLOCK_CELLS = 1 << 17
SINGULAR_RATIO = 1e-10
NARROWEST_BLOCK, WIDEST_BLOCK = 128, 2048
# Wider than any tile of a BLAS kernel and a multiple of them: a column's place in its tile stays the same.
WIDTH_UNIT = 64
# Residual squares smaller than this part of the centred squares are summed from the residuals themselves: as the
# difference of two near numbers they would lose more than one digit.
CANCELLED_RATIO = 1.0 / 16.0


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Scans gathered by batch: `order` sorts the rows, batch b is `order[starts[b]:stops[b]]`."""

    order: IntArray
    starts: IntArray
    stops: IntArray
    sorted_already: bool

    @property
    def counts(self) -> IntArray:
        return self.stops - self.starts

    def spans(self) -> Iterator[tuple[int, int, int]]:
        for batch, (start, stop) in enumerate(zip(self.starts.tolist(), self.stops.tolist(), strict=True)):
            yield batch, start, stop

    def rows(self, start: int, stop: int) -> slice | IntArray:
        """Return the rows at the sorted positions from `start` to `stop`; a slice where they lie together."""
        return slice(start, stop) if self.sorted_already else self.order[start:stop]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Least-squares summaries of the data.

    `intercepts` [batches x features] at the covariates' centre, `coefficients` [columns x features] per
    scaled column, `residual_squares` and `counts` [batches x features], `constant`, `uniform` and `unusable`
    see `fit_statistics`.
    """

    intercepts: FloatArray
    coefficients: FloatArray
    residual_squares: FloatArray
    counts: FloatArray
    constant: BoolArray
    uniform: BoolArray
    unusable: BoolArray
    centre: FloatArray
    scale: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The covariates centred within batches, rows in batch order, as an orthonormal basis of what they span.

    `within` [scans x columns] are the scaled centred covariates, `vectors` [scans x rank] the basis, `back`
    [columns x rank] turns weights of the basis into coefficients, `products` [batches x rank x rank] are the basis'
    products within each batch, `batch_centres` [batches x columns] the covariates' means.
    """

    within: FloatArray
    vectors: FloatArray
    back: FloatArray
    products: FloatArray
    batch_centres: FloatArray
    centre: FloatArray
    scale: FloatArray


def group_rows(codes: IntArray, batches: int) -> Grouping:
    """Return the rows of each batch, in their own order within it."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=batches)
    stops = np.cumsum(counts)
    return Grouping(order, stops - counts, stops, bool(np.all(codes[1:] >= codes[:-1])))


def blocks(columns: int, rows: int, cells: int = BLOCK_CELLS) -> Iterator[slice]:
    """Yield slices of features so that a block of `rows` scans holds about `cells` values."""
    width = max(16, cells // max(rows, 1))
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def block_width(grouping: Grouping) -> int:
    """Return the features a chunk takes together; results are bitwise alike where blocks begin at its multiples."""
    largest = int(grouping.counts.max(initial=1))
    return min(max(BLOCK_CELLS // largest, NARROWEST_BLOCK), WIDEST_BLOCK) // WIDTH_UNIT * WIDTH_UNIT


def covariate_basis(covariates: FloatArray, grouping: Grouping) -> Basis:
    """Return the basis of `covariates` [scans x columns, in the rows' order]."""
    centre, scale = covariates.mean(axis=0), covariates.std(axis=0)
    scale[scale == 0] = 1.0
    scaled = ((covariates - centre) / scale)[grouping.order]
    batch_centres = batch_means(scaled, grouping)
    within = scaled - np.repeat(batch_centres, grouping.counts, axis=0)
    left, singular, right = np.linalg.svd(within, full_matrices=False)
    kept = singular > np.finfo(np.float64).eps * max(within.shape) * singular.max(initial=0.0)
    vectors = np.ascontiguousarray(left[:, kept])
    products = np.stack([vectors[start:stop].T @ vectors[start:stop] for _, start, stop in grouping.spans()])
    return Basis(within, vectors, right[kept].T / singular[kept], products, batch_centres, centre, scale)


def empty_statistics(features: int, grouping: Grouping, basis: Basis) -> Statistics:
    """Return summaries to be filled in; `counts` are those of complete features."""
    batches = len(grouping.starts)
    counts = grouping.counts[:, None].astype(np.float64)
    return Statistics(
        intercepts=np.empty((batches, features)),
        coefficients=np.empty((basis.within.shape[1], features)),
        residual_squares=np.empty((batches, features)),
        counts=np.broadcast_to(counts, (batches, features)),
        constant=np.zeros((batches, features), dtype=np.bool_),
        uniform=np.zeros(features, dtype=np.bool_),
        unusable=np.zeros(features, dtype=np.bool_),
        centre=basis.centre,
        scale=basis.scale,
    )


def fill_complete(values: FloatArray, grouping: Grouping, basis: Basis, result: Statistics) -> IntArray:
    """Fill `result` as if every cell were finite; return the columns in which a sum is not."""
    width, features = block_width(grouping), values.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        found = [
            _fill_block(values, slice(start, min(start + width, features)), grouping, basis, result)
            for start in range(0, features, width)
        ]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def constant_columns(values: FloatArray) -> BoolArray:
    """Return which columns hold one value only; most are ruled out by the first two rows."""
    if len(values) < 2:
        return np.zeros(values.shape[1], dtype=np.bool_)
    constant = np.asarray(values[0] == values[1])
    candidates = np.flatnonzero(constant)
    if candidates.size:
        constant[candidates] = np.all(values[:, candidates] == values[0, candidates], axis=0)
    return constant


def batch_means(values: FloatArray, grouping: Grouping) -> FloatArray:
    """Return the mean of each batch [batches x columns] of `values` whose rows are in batch order."""
    means = np.empty((len(grouping.starts), values.shape[1]))
    for batch, start, stop in grouping.spans():
        np.add.reduce(values[start:stop], axis=0, out=means[batch])
    return means / grouping.counts[:, None]


def _fill_block(
    values: FloatArray, block: slice, grouping: Grouping, basis: Basis, result: Statistics
) -> IntArray:
    cross = np.empty((len(grouping.starts), basis.vectors.shape[1], block.stop - block.start))
    means, squares = result.intercepts[:, block], result.residual_squares[:, block]
    first = np.empty(means.shape)
    for batch, start, stop in grouping.spans():
        chunk = values[grouping.rows(start, stop), block]
        first[batch] = chunk[0]
        result.constant[batch, block] = constant_columns(chunk)
        np.add.reduce(chunk, axis=0, out=means[batch])
        means[batch] /= stop - start
        chunk = np.subtract(chunk, means[batch], out=None if grouping.sorted_already else chunk)
        np.einsum("sf,sf->f", chunk, chunk, out=squares[batch])
        if len(cross[batch]):
            np.matmul(basis.vectors[start:stop].T, chunk, out=cross[batch])
    lone = (result.constant[:, block] | (grouping.counts < 2)[:, None]).all(axis=0)
    result.uniform[block] = lone & (first == first[0]).all(axis=0) & (grouping.counts.sum() > 1)
    unsummed = np.flatnonzero(~np.isfinite(means).all(axis=0))
    if basis.vectors.shape[1]:
        _solve_block(values, block, grouping, basis, cross, result)
    return np.asarray(block.start + unsummed)


def _solve_block(
    values: FloatArray,
    block: slice,
    grouping: Grouping,
    basis: Basis,
    cross: FloatArray,
    result: Statistics,
) -> None:
    """Turn means into intercepts and centred squares into residual squares."""
    weights = cross.sum(axis=0)
    coefficients = basis.back @ weights
    result.coefficients[:, block] = coefficients
    result.intercepts[:, block] -= basis.batch_centres @ coefficients
    squares = result.residual_squares[:, block]
    limit = CANCELLED_RATIO * squares
    cross *= 2.0
    cross -= basis.products @ weights
    squares -= np.einsum("brf,rf->bf", cross, weights)
    cancelled = np.flatnonzero((squares < limit).any(axis=0))
    if cancelled.size:
        squares[:, cancelled] = _summed_residuals(
            values, block.start + cancelled, grouping, basis, weights[:, cancelled]
        )


def _summed_residuals(
    values: FloatArray, columns: IntArray, grouping: Grouping, basis: Basis, weights: FloatArray
) -> FloatArray:
    """Return each batch's sum of squared residuals [batches x columns], from the residuals."""
    sums = np.empty((len(grouping.starts), len(columns)))
    for batch, start, stop in grouping.spans():
        chunk = values[grouping.order[start:stop, None], columns]
        chunk -= chunk.mean(axis=0)
        chunk -= basis.vectors[start:stop] @ weights
        np.einsum("sf,sf->f", chunk, chunk, out=sums[batch])
    return sums
