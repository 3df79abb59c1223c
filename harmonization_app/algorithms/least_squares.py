"""Least-squares summaries of all complete features, by batch, in one pass over the data.

The batch indicators are eliminated from the least squares first (Frisch-Waugh-Lovell): covariates and values are
centred within batches, so only the covariates' own columns are solved for. Of every batch the pass keeps the mean,
the centred sum of squares and the products with an orthonormal basis of the centred covariates; coefficients and
residual squares follow from those without a second look at the values. Work goes by chunks (one batch, a block of
features) that fit the second-level cache, in compiled loops (`statistics_loops`). Model: Johnson,
Li, Rabinovic, Biostatistics 8:118 (2007); Fortin et al., NeuroImage 161:149 (2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import BoolArray, FloatArray, IntArray
from harmonization_app.algorithms.threads import spread

BLOCK_CELLS = 1 << 17
SINGULAR_RATIO = 1e-10
NARROWEST_BLOCK, WIDEST_BLOCK = 128, 1024
WIDTH_UNIT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Scans gathered by batch: `order` sorts the rows, batch b is `order[starts[b]:stops[b]]`."""

    order: IntArray
    starts: IntArray
    stops: IntArray

    @property
    def counts(self) -> IntArray:
        return self.stops - self.starts

    def spans(self) -> Iterator[tuple[int, int, int]]:
        for batch, (start, stop) in enumerate(zip(self.starts.tolist(), self.stops.tolist(), strict=True)):
            yield batch, start, stop


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
    return Grouping(order, stops - counts, stops)


def blocks(columns: int, rows: int, cells: int = BLOCK_CELLS) -> Iterator[slice]:
    """Yield slices of features so that a block of `rows` scans holds about `cells` values."""
    width = max(16, cells // max(rows, 1))
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def block_width(grouping: Grouping) -> int:
    """Return the features a chunk takes together, so that a batch's chunk fits the second-level cache."""
    largest = int(grouping.counts.max(initial=1))
    return min(max(BLOCK_CELLS // largest, NARROWEST_BLOCK), WIDEST_BLOCK) // WIDTH_UNIT * WIDTH_UNIT


def covariate_basis(covariates: FloatArray, grouping: Grouping) -> Basis:
    """Return the basis of `covariates` [scans x columns, in the rows' order]."""
    centre, scale = covariates.mean(axis=0), covariates.std(axis=0)
    scale[scale == 0] = 1.0
    scaled = ((covariates - centre) / scale)[grouping.order]
    within, batch_centres = centre_within(scaled, grouping)
    left, singular, right = np.linalg.svd(within, full_matrices=False)
    kept = singular > np.finfo(np.float64).eps * max(within.shape) * singular.max(initial=0.0)
    vectors = read_only(left[:, kept])
    products = np.stack([vectors[start:stop].T @ vectors[start:stop] for _, start, stop in grouping.spans()])
    back = np.ascontiguousarray(right[kept].T / singular[kept])
    return Basis(within, vectors, back, products, batch_centres, centre, scale)


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
    from harmonization_app.algorithms import statistics_loops

    # Compiled loops would read beside the arrays.
    if not (grouping.counts.size and grouping.counts.all()):
        raise ValueError("every batch needs a scan")
    if len(grouping.order) != len(values):
        raise ValueError(f"{len(values)} scans of values, {len(grouping.order)} scans in batches")
    width, features = block_width(grouping), values.shape[1]
    table = read_only(values)
    unsummed = np.empty(features, dtype=np.bool_)

    def summarize(first: int, last: int) -> None:
        statistics_loops.summarize(
            table,
            grouping.order,
            grouping.starts,
            grouping.stops,
            basis.vectors,
            basis.back,
            basis.products,
            basis.batch_centres,
            first,
            last,
            width,
            result.intercepts,
            result.coefficients,
            result.residual_squares,
            result.constant,
            result.uniform,
            unsummed,
        )

    spread(summarize, features, width)
    return np.flatnonzero(unsummed)


def read_only(values: FloatArray) -> FloatArray:
    """Return the same cells, contiguous, in this machine's float64 and not to be written.

    Compiled loops are made for this one form; they would take numbers of the other byte order for their own.
    """
    view = np.ascontiguousarray(values, dtype=np.float64).view()
    view.flags.writeable = False
    return view


def constant_columns(values: FloatArray) -> BoolArray:
    """Return which columns hold one value only; most are ruled out by the first two rows."""
    if len(values) < 2:
        return np.zeros(values.shape[1], dtype=np.bool_)
    constant = np.asarray(values[0] == values[1])
    candidates = np.flatnonzero(constant)
    if candidates.size:
        constant[candidates] = np.all(values[:, candidates] == values[0, candidates], axis=0)
    return constant


def centre_within(values: FloatArray, grouping: Grouping) -> tuple[FloatArray, FloatArray]:
    """Return `values`, whose rows are in batch order, less their batch's mean, and these means [batches x columns]."""
    means = batch_means(values, grouping)
    return values - np.repeat(means, grouping.counts, axis=0), means


def batch_means(values: FloatArray, grouping: Grouping) -> FloatArray:
    """Return the mean of each batch [batches x columns] of `values` whose rows are in batch order."""
    means = np.empty((len(grouping.starts), values.shape[1]))
    for batch, start, stop in grouping.spans():
        np.add.reduce(values[start:stop], axis=0, out=means[batch])
    return means / grouping.counts[:, None]
