"""Cells that are not finite: where they are, and the least-squares summaries of features that miss some."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harmonization_app.algorithms.base import BoolArray, FloatArray, IntArray
from harmonization_app.algorithms.least_squares import (
    SINGULAR_RATIO,
    Basis,
    Grouping,
    Statistics,
    blocks,
)

# A feature whose observed scans leave the covariates this much of their own variance determines their effects beyond
# any doubt of rounding.
DETERMINED_RATIO = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Where cells are missing (NaN) or infinite; rows as flags [scans], features as sorted columns.

    Where a table was read by batch, `doubtful` are the columns with missing cells whose observed scans may not
    determine the covariates' effects.
    """

    missing: int
    missing_rows: BoolArray
    missing_columns: IntArray
    infinite_rows: BoolArray
    infinite_columns: IntArray
    doubtful: IntArray


def read_cells(values: FloatArray) -> Cells:
    """Return the cells of `values` [scans x features] that are not finite, by one sum over each row."""
    scans, features = values.shape
    missing_rows, infinite_rows = np.zeros(scans, dtype=np.bool_), np.zeros(scans, dtype=np.bool_)
    missing, infinite, absent = (
        np.zeros(features, dtype=np.bool_),
        np.zeros(features, dtype=np.bool_),
        0,
    )
    with np.errstate(invalid="ignore", over="ignore"):
        suspects = np.flatnonzero(~np.isfinite(values.sum(axis=1)))
    for row in suspects.tolist():
        unknown, boundless = np.isnan(values[row]), np.isinf(values[row])
        missing |= unknown
        infinite |= boundless
        missing_rows[row], infinite_rows[row] = unknown.any(), boundless.any()
        absent += int(unknown.sum())
    nothing = np.empty(0, dtype=np.int64)
    return Cells(
        absent, missing_rows, np.flatnonzero(missing), infinite_rows, np.flatnonzero(infinite), nothing
    )


def fill_incomplete(
    values: FloatArray, columns: IntArray, grouping: Grouping, basis: Basis, result: Statistics
) -> tuple[Cells, Statistics]:
    """Return what is not finite in `columns` and `result` with the summaries of those that have missing cells.

    Columns with infinite cells, which the gate refuses, are marked unusable; of them only the counts are given.
    """
    missing_rows = np.zeros(len(values), dtype=np.bool_)
    infinite_rows = np.zeros(len(values), dtype=np.bool_)
    missing, infinite, doubtful, absent = [], [], [], 0
    for part in blocks(len(columns), len(values)):
        own = columns[part]
        gathered = values[grouping.order[:, None], own]
        unknown, boundless = np.isnan(gathered), np.isinf(gathered)
        missing_rows[grouping.order] |= unknown.any(axis=1)
        infinite_rows[grouping.order] |= boundless.any(axis=1)
        absent += int(unknown.sum())
        at_fault = boundless.any(axis=0)
        lacking = unknown.any(axis=0)
        infinite.append(own[at_fault])
        missing.append(own[lacking])
        if lacking.any() and not result.counts.flags.writeable:
            result = replace(result, counts=result.counts.copy())
        result.unusable[own[at_fault]] = True
        both = at_fault & lacking
        if both.any():
            result.counts[:, own[both]] = _observed(unknown[:, both], grouping)
            doubtful.append(own[both])
        chosen = np.flatnonzero(lacking & ~at_fault)
        if chosen.size:
            with np.errstate(invalid="ignore", over="ignore"):
                unclear = _fill_columns(gathered[:, chosen], own[chosen], grouping, basis, result)
            doubtful.append(own[chosen[unclear]])
    nothing = np.empty(0, dtype=np.int64)
    cells = Cells(
        absent,
        missing_rows,
        np.concatenate([nothing, *missing]),
        infinite_rows,
        np.concatenate([nothing, *infinite]),
        np.sort(np.concatenate([nothing, *doubtful])),
    )
    return cells, result


def _observed(unknown: BoolArray, grouping: Grouping) -> FloatArray:
    """Return the observed scans [batches x columns]."""
    return np.stack([(~unknown[start:stop]).sum(axis=0) for _, start, stop in grouping.spans()]).astype(float)


def _fill_columns(
    values: FloatArray, columns: IntArray, grouping: Grouping, basis: Basis, result: Statistics
) -> BoolArray:
    """Fill the summaries of columns with missing cells: each feature's own normal equations, refined once.

    `values` have their rows in batch order. Returns which columns may not determine the covariates' effects.
    """
    within = basis.within
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
    scans = counts.sum(axis=0)
    singular, doubtful = undetermined(gram, scans), _doubtful(gram, scans)
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
    shift = np.einsum("bcf,cf->bf", own_centres, coefficients) + basis.batch_centres @ coefficients
    result.residual_squares[:, columns] = np.stack([centred[a:b].sum(axis=0) for _, a, b in grouping.spans()])
    result.coefficients[:, columns] = coefficients
    result.intercepts[:, columns] = means - shift
    result.counts[:, columns] = counts
    result.unusable[columns] = singular | (counts == 0).any(axis=0)
    return doubtful


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


def undetermined(gram: FloatArray, scans: FloatArray) -> BoolArray:
    """Return where a column does not vary over the observed `scans` [features], or others determine it.

    `gram` [features x columns x columns] are the products of scaled covariates centred within batches.
    """
    if not gram.shape[1]:
        return np.zeros(len(gram), dtype=np.bool_)
    squares = np.einsum("fcc->fc", gram)
    flat = squares <= SINGULAR_RATIO * scans[:, None]
    length = np.sqrt(np.where(flat, 1.0, squares))
    smallest = np.linalg.eigvalsh(gram / (length[:, :, None] * length[:, None, :]))[:, 0]
    return np.asarray((smallest <= SINGULAR_RATIO) | flat.any(axis=1))


def _doubtful(gram: FloatArray, scans: FloatArray) -> BoolArray:
    if not gram.shape[1]:
        return np.zeros(len(gram), dtype=np.bool_)
    return np.asarray(~(np.linalg.eigvalsh(gram)[:, 0] > DETERMINED_RATIO * scans))
