"""What the gate asks of the values, read in the one pass that also gives the fit its statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """A summary with what it was read from; without it, when the statistics were taken, the cells remain."""

    values: FloatArray
    codes: IntArray
    covariates: FloatArray
    cells: Cells
    summary: Summary | None


def summarize(dataset: Dataset, design: Design) -> Summary:
    """Return the summary of `dataset` by the batches and covariates of `design`; read once of an Examined one."""
    read = _kept(dataset)
    if read is not None and read.summary is not None and _same_design(read, design):
        return read.summary
    summary = summarize_values(dataset.values, design, group_rows(design.codes, len(design.batches)))
    if isinstance(dataset, Examined):
        dataset.memo[MEMO] = _Read(dataset.values, design.codes, design.covariates, summary.cells, summary)
    return summary


def take_statistics(dataset: Dataset, design: Design) -> Statistics:
    """Return the least-squares summaries of `dataset`: those the gate read by this design, else read now.

    They are the caller's own: kept ones are handed over once.
    """
    read = _kept(dataset)
    if read is None or read.summary is None or not _same_design(read, design):
        return fit_statistics(
            dataset.values, group_rows(design.codes, len(design.batches)), design.covariates
        )
    if isinstance(dataset, Examined):
        dataset.memo[MEMO] = replace(read, summary=None)
    return read.summary.statistics


def find_cells(dataset: Dataset) -> Cells:
    """Return the cells of `dataset` that are not finite; as they were read, of an Examined one."""
    read = _kept(dataset)
    return read_cells(dataset.values) if read is None else read.cells


def _kept(dataset: Dataset) -> _Read | None:
    """Return what was read of these very values."""
    read = dataset.memo.get(MEMO) if isinstance(dataset, Examined) else None
    return read if isinstance(read, _Read) and read.values is dataset.values else None


def _same_design(read: _Read, design: Design) -> bool:
    return np.array_equal(read.codes, design.codes) and np.array_equal(read.covariates, design.covariates)


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
