"""Location and scale statistics in one pass over the data, and the correction in one affine pass.

`fit_statistics` gives the least-squares summaries that every method of the ComBat family starts from; `read_table`
gives them together with what the gate asks of the cells, so that one pass serves both.
"""

from __future__ import annotations

from harmonization_app.algorithms.affine import BatchEffects, apply_affine
from harmonization_app.algorithms.base import BoolArray, FloatArray
from harmonization_app.algorithms.least_squares import (
    SINGULAR_RATIO,
    Grouping,
    Statistics,
    block_width,
    blocks,
    constant_columns,
    covariate_basis,
    empty_statistics,
    fill_complete,
    group_rows,
)
from harmonization_app.algorithms.missing_cells import Cells, fill_incomplete, read_cells

__all__ = [
    "SINGULAR_RATIO",
    "BatchEffects",
    "BoolArray",
    "Cells",
    "Grouping",
    "Statistics",
    "apply_affine",
    "block_width",
    "blocks",
    "constant_columns",
    "fit_statistics",
    "group_rows",
    "read_cells",
    "read_table",
]


def fit_statistics(values: FloatArray, grouping: Grouping, covariates: FloatArray) -> Statistics:
    """Return the summaries of `values` [scans x features] given `covariates` [scans x columns], NaN-aware.

    `constant` [batches x features] marks batches in which a feature has one value only, `uniform` [features]
    those with one value in the whole table; `unusable` [features] marks features that lack a batch wholly or
    whose observed scans do not determine the covariates' coefficients. `counts` is read-only where nothing is missing.
    """
    return read_table(values, grouping, covariates)[1]


def read_table(values: FloatArray, grouping: Grouping, covariates: FloatArray) -> tuple[Cells, Statistics]:
    """Return where cells are not finite, and the summaries of `fit_statistics`, from one pass over `values`."""
    basis = covariate_basis(covariates, grouping)
    statistics = empty_statistics(values.shape[1], grouping, basis)
    unsummed = fill_complete(values, grouping, basis, statistics)
    return fill_incomplete(values, unsummed, grouping, basis, statistics)
