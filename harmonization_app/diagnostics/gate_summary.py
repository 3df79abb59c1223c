"""What the gate asks of the values, read in the one pass that also gives the fit its statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.kernel import (
    Cells,
    Grouping,
    Statistics,
    fit_statistics,
    group_rows,
    read_cells,
    read_table,
)
from harmonization_app.algorithms.table import Examined
from harmonization_app.diagnostics.gate_covariates import undetermined_columns

PREFIX_FEATURES = 8
MEMO = "gate summary"


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """One pass over a table: its cells, its statistics and, by scan, the first scan with the same values.

    `undetermined` are the columns whose observed scans do not determine the covariates' effects.
    """

    cells: Cells
    statistics: Statistics
    same_as: IntArray
    undetermined: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A summary with what it was read from."""

    values: FloatArray
    codes: IntArray
    covariates: FloatArray
    summary: Summary


def summarize(dataset: Dataset, design: Design) -> Summary:
    """Return the summary of `dataset` by the batches and covariates of `design`; read once of an Examined one."""
    known = kept_summary(dataset, design)
    if known is not None:
        return known
    summary = summarize_values(dataset.values, design, group_rows(design.codes, len(design.batches)))
    if isinstance(dataset, Examined):
        dataset.memo[MEMO] = _Read(dataset.values, design.codes, design.covariates, summary)
    return summary


def kept_summary(dataset: Dataset, design: Design | None = None) -> Summary | None:
    """Return the summary kept with these very values and, where given, this design."""
    read = dataset.memo.get(MEMO) if isinstance(dataset, Examined) else None
    if not isinstance(read, _Read) or read.values is not dataset.values:
        return None
    if design is not None and not (
        np.array_equal(read.codes, design.codes) and np.array_equal(read.covariates, design.covariates)
    ):
        return None
    return read.summary


def take_statistics(dataset: Dataset, design: Design) -> Statistics:
    """Return the least-squares summaries of `dataset`: those the gate read by this design, else read now."""
    known = kept_summary(dataset, design)
    if known is not None:
        return known.statistics
    return fit_statistics(dataset.values, group_rows(design.codes, len(design.batches)), design.covariates)


def summarize_values(values: FloatArray, design: Design, grouping: Grouping) -> Summary:
    """Return the summary of `values` [scans x features]."""
    cells, statistics = read_table(values, grouping, design.covariates)
    undetermined = undetermined_columns(values, design, cells.doubtful)
    return Summary(cells, statistics, first_alike(values), undetermined)


def without_batches(values: FloatArray) -> Summary:
    """Return the summary of a table whose batches or covariates are at fault: as one batch, without covariates."""
    scans = len(values)
    codes = np.zeros(scans, dtype=np.int64)
    cells, statistics = read_table(values, group_rows(codes, 1), np.empty((scans, 0)))
    return Summary(cells, statistics, first_alike(values), np.empty(0, dtype=np.int64))


def find_cells(dataset: Dataset) -> Cells:
    """Return the cells of `dataset` that are not finite; as they were read, of an Examined one."""
    known = kept_summary(dataset)
    return known.cells if known is not None else read_cells(dataset.values)


def first_alike(values: FloatArray) -> IntArray:
    """Return, by scan, the first scan whose values are the same bit for bit (itself where there is none before)."""
    bits = values.view(np.int64)
    seen: dict[bytes, list[int]] = {}
    first = np.arange(len(values))
    for row, prefix in enumerate(np.ascontiguousarray(bits[:, :PREFIX_FEATURES])):
        earlier = seen.setdefault(prefix.tobytes(), [])
        for other in earlier:
            if np.array_equal(bits[row], bits[other]):
                first[row] = other
                break
        else:
            earlier.append(row)
    return first
