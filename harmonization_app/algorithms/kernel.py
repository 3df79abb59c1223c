"""Location and scale statistics in one pass over the data, and the correction in one affine pass.

The batch indicators are eliminated from the least squares first (Frisch-Waugh-Lovell): covariates and values
are centred within batches, so only the covariates' own columns are solved for, and the batch intercepts, the
pooled variance and every batch's variance follow from the same residuals. Work goes by blocks of features
that fit the second-level cache; nothing of the size of the data is allocated but the result. Model: Johnson,
Li, Rabinovic, Biostatistics 8:118 (2007); Fortin et al., NeuroImage 161:149 (2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import FloatArray, IntArray

BLOCK_CELLS = 1 << 17
AFFINE_CELLS = 1 << 16
SINGULAR_RATIO = 1e-10

BoolArray = npt.NDArray[np.bool_]


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


def fit_statistics(values: FloatArray, grouping: Grouping, covariates: FloatArray) -> Statistics:
    """Return the summaries of `values` [scans x features] given `covariates` [scans x columns], NaN-aware.

    `constant` [batches x features] marks batches in which a feature has one value only, `uniform` [features]
    those with one value in the whole table; `unusable` [features] marks features that lack a batch wholly or
    whose observed scans do not determine the covariates' coefficients.
    """
    scans, features = values.shape
    centre = covariates.mean(axis=0)
    scale = covariates.std(axis=0)
    scale[scale == 0] = 1.0
    scaled = ((covariates - centre) / scale)[grouping.order]
    batch_centres = _batch_means(scaled, grouping)
    within = scaled - np.repeat(batch_centres, grouping.counts, axis=0)
    solver = np.linalg.pinv(within) if within.shape[1] else np.empty((0, scans))
    batches = len(grouping.starts)
    result = Statistics(
        intercepts=np.empty((batches, features)),
        coefficients=np.empty((within.shape[1], features)),
        residual_squares=np.empty((batches, features)),
        counts=np.repeat(grouping.counts[:, None].astype(np.float64), features, axis=1),
        constant=np.zeros((batches, features), dtype=np.bool_),
        uniform=np.zeros(features, dtype=np.bool_),
        unusable=np.zeros(features, dtype=np.bool_),
        centre=centre,
        scale=scale,
    )
    for block in blocks(features, scans):
        gathered = values[:, block] if grouping.sorted_already else values[grouping.order, block]
        incomplete = _complete_block(gathered, block, grouping, within, solver, batch_centres, result)
        if incomplete.size:
            _incomplete_columns(
                gathered[:, incomplete], block.start + incomplete, grouping, within, batch_centres, result
            )
    return result


def apply_affine(
    values: FloatArray,
    grouping: Grouping,
    scaled_covariates: FloatArray,
    slopes: FloatArray,
    offsets: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """Return slope * value + offset + (1 - slope) * covariate effect, by batch and feature.

    `slopes` and `offsets` are [batches x features]; `scaled_covariates` [scans x columns] in the rows' order.
    A batch with slope 1 and offset 0 comes back bit for bit.
    """
    result = np.empty_like(values)
    for batch, start, stop in grouping.spans():
        rows: slice | IntArray = grouping.order[start:stop]
        if grouping.sorted_already:
            rows = slice(start, stop)
        own = scaled_covariates[rows]
        for block in blocks(values.shape[1], stop - start, AFFINE_CELLS):
            slope = slopes[batch, block]
            corrected = values[rows, block] * slope
            if own.shape[1] and np.any(slope != 1.0):
                corrected += own @ (coefficients[:, block] * (1.0 - slope))
            corrected += offsets[batch, block]
            result[rows, block] = corrected
    return result


def _batch_means(values: FloatArray, grouping: Grouping) -> FloatArray:
    means = np.empty((len(grouping.starts), values.shape[1]))
    for batch, start, stop in grouping.spans():
        np.add.reduce(values[start:stop], axis=0, out=means[batch])
    return means / grouping.counts[:, None]


def _complete_block(
    gathered: FloatArray,
    block: slice,
    grouping: Grouping,
    within: FloatArray,
    solver: FloatArray,
    batch_centres: FloatArray,
    result: Statistics,
) -> IntArray:
    """Fill the summaries of one block as if complete; return the columns (in the block) that have missing
    cells.
    """
    means = _batch_means(gathered, grouping)
    residuals = np.empty(gathered.shape)
    for batch, start, stop in grouping.spans():
        np.subtract(gathered[start:stop], means[batch], out=residuals[start:stop])
        result.constant[batch, block] = constant_columns(gathered[start:stop])
    coefficients = solver @ residuals
    if within.shape[1]:
        residuals -= within @ coefficients
    np.multiply(residuals, residuals, out=residuals)
    for batch, start, stop in grouping.spans():
        np.add.reduce(residuals[start:stop], axis=0, out=result.residual_squares[batch, block])
    result.uniform[block] = constant_columns(gathered)
    result.coefficients[:, block] = coefficients
    result.intercepts[:, block] = means - batch_centres @ coefficients
    return np.flatnonzero(np.isnan(means).any(axis=0))


def constant_columns(values: FloatArray) -> BoolArray:
    """Return which columns hold one value only; most are ruled out by the first two rows."""
    if len(values) < 2:
        return np.zeros(values.shape[1], dtype=np.bool_)
    constant = np.asarray(values[0] == values[1])
    candidates = np.flatnonzero(constant)
    if candidates.size:
        constant[candidates] = np.all(values[:, candidates] == values[0, candidates], axis=0)
    return constant


def _incomplete_columns(
    values: FloatArray,
    columns: IntArray,
    grouping: Grouping,
    within: FloatArray,
    batch_centres: FloatArray,
    result: Statistics,
) -> None:
    """Fill the summaries of columns with missing cells: each feature's own normal equations, refined once."""
    observed = ~np.isnan(values)
    mask = observed.astype(np.float64)
    counts = np.stack([mask[start:stop].sum(axis=0) for _, start, stop in grouping.spans()])
    safe = np.maximum(counts, 1.0)
    centred = np.where(observed, values, 0.0)
    means = np.stack([centred[start:stop].sum(axis=0) for _, start, stop in grouping.spans()]) / safe
    for batch, start, stop in grouping.spans():
        centred[start:stop] -= means[batch]
        result.constant[batch, columns] = _constant_observed(values[start:stop], observed[start:stop])
    centred *= mask
    result.uniform[columns] = _constant_observed(values, observed)
    own_centres = _observed_centres(mask, within, safe, grouping)
    gram = _observed_gram(mask, within, counts, own_centres)
    singular = _singular(gram, counts.sum(axis=0))
    gram[singular] = np.eye(within.shape[1])
    coefficients = np.zeros((within.shape[1], len(columns)))
    for _ in range(2 if within.shape[1] else 0):
        step = np.linalg.solve(gram, (within.T @ centred).T[:, :, None])[:, :, 0].T
        coefficients += step
        centred -= within @ step
        for batch, start, stop in grouping.spans():
            centred[start:stop] += np.einsum("cf,cf->f", own_centres[batch], step)
        centred *= mask
    np.multiply(centred, centred, out=centred)
    shift = np.einsum("bcf,cf->bf", own_centres, coefficients) + batch_centres @ coefficients
    result.residual_squares[:, columns] = np.stack([centred[a:b].sum(axis=0) for _, a, b in grouping.spans()])
    result.coefficients[:, columns] = coefficients
    result.intercepts[:, columns] = means - shift
    result.counts[:, columns] = counts
    result.unusable[columns] = singular | (counts == 0).any(axis=0)


def _constant_observed(values: FloatArray, observed: BoolArray) -> BoolArray:
    lowest = np.where(observed, values, np.inf).min(axis=0)
    highest = np.where(observed, values, -np.inf).max(axis=0)
    return np.asarray((lowest == highest) & (observed.sum(axis=0) > 1))


def _observed_centres(
    mask: FloatArray, within: FloatArray, counts: FloatArray, grouping: Grouping
) -> FloatArray:
    """Return the mean covariates of the observed scans [batches x columns x features]."""
    sums = [within[start:stop].T @ mask[start:stop] for _, start, stop in grouping.spans()]
    return np.stack(sums) / counts[:, None, :]


def _observed_gram(
    mask: FloatArray, within: FloatArray, counts: FloatArray, centres: FloatArray
) -> FloatArray:
    """Return the covariates' cross products within batches over the observed scans [features x columns x
    columns].
    """
    size = within.shape[1]
    products = (within[:, :, None] * within[:, None, :]).reshape(len(within), size * size)
    gram = (products.T @ mask).T.reshape(mask.shape[1], size, size)
    return gram - np.einsum("bf,bcf,bdf->fcd", counts, centres, centres)


def _singular(gram: FloatArray, scans: FloatArray) -> BoolArray:
    """Return where a column does not vary over the observed `scans` [features], or others determine it."""
    if not gram.shape[1]:
        return np.zeros(len(gram), dtype=np.bool_)
    squares = np.einsum("fcc->fc", gram)
    flat = squares <= SINGULAR_RATIO * scans[:, None]
    length = np.sqrt(np.where(flat, 1.0, squares))
    smallest = np.linalg.eigvalsh(gram / (length[:, :, None] * length[:, None, :]))[:, 0]
    return np.asarray((smallest <= SINGULAR_RATIO) | flat.any(axis=1))
