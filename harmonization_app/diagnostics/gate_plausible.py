"""Plausible ranges: those the plan gives by feature or unit, never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray
from harmonization_app.algorithms.least_squares import blocks
from harmonization_app.diagnostics.wording import SHOWN, listed

Range = tuple[float | None, float | None]

# Rows and columns named in one finding; the message counts all.
MOST_NAMED = 1000


def check_plausible(
    dataset: Dataset, ranges: Mapping[str, Range], features: Sequence[str] = ()
) -> list[Finding]:
    """Return a stop for values outside `ranges`, given by feature name or by unit; the name wins.

    A range is (least, greatest), either None where open. Missing cells are not judged, nor features that are not among
    `features`, where some are named. A range for what the table does not have is a stop too: a slip of the pen would
    else judge nothing. The table is read by blocks of features.
    """
    if not ranges:
        return []
    return _unknown(dataset, ranges) + _outside(dataset, *_bounds(dataset, ranges, features))


def _unknown(dataset: Dataset, ranges: Mapping[str, Range]) -> list[Finding]:
    known = {*dataset.features, *filter(None, dataset.units)}
    unknown = tuple(name for name in ranges if name not in known)
    if not unknown:
        return []
    message = (
        f"The plan gives plausible ranges for {listed(unknown)}, neither a feature nor a unit of this table. Correct "
        "the name, or import the table with its units."
    )
    return [Finding("plausible_range_unknown", "stop", message, columns=unknown[:MOST_NAMED])]


def _bounds(
    dataset: Dataset, ranges: Mapping[str, Range], features: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Return the least and the greatest value of each feature, infinite where open."""
    judged = set(features or dataset.features)
    least, greatest = np.full(len(dataset.features), -np.inf), np.full(len(dataset.features), np.inf)
    for index, (name, unit) in enumerate(zip(dataset.features, dataset.units, strict=True)):
        planned = ranges.get(name, ranges.get(unit) if unit else None)
        if planned is None or name not in judged:
            continue
        least[index] = -np.inf if planned[0] is None else planned[0]
        greatest[index] = np.inf if planned[1] is None else planned[1]
    return least, greatest


def _outside(dataset: Dataset, least: FloatArray, greatest: FloatArray) -> list[Finding]:
    at_fault = np.zeros(len(dataset.rows), dtype=bool)
    columns: list[str] = []
    shown: list[str] = []
    cells = 0
    for index, found in _by_feature(dataset, least, greatest):
        at_fault[found] = True
        cells += len(found)
        columns.append(dataset.features[index])
        shown += [_cell(dataset, int(row), index) for row in found[: SHOWN - len(shown)]]
    if not cells:
        return []
    rows = [dataset.rows[row] for row in np.flatnonzero(at_fault)]
    more = f" and {cells - len(shown)} more" if cells > len(shown) else ""
    message = (
        f"{cells} value(s), in {len(rows)} row(s) and {len(columns)} feature(s), lie outside the ranges of the plan: "
        f"{', '.join(shown)}{more}. Correct or empty the cells, check the units, or leave the rows out."
    )
    return [
        Finding(
            "implausible_value",
            "stop",
            message,
            rows=tuple(rows[:MOST_NAMED]),
            columns=tuple(columns[:MOST_NAMED]),
        )
    ]


def _by_feature(
    dataset: Dataset, least: FloatArray, greatest: FloatArray
) -> Iterator[tuple[int, np.ndarray[tuple[int], np.dtype[np.intp]]]]:
    """Yield each feature with values outside, and their rows."""
    bounded = np.isfinite(least) | np.isfinite(greatest)
    for block in blocks(len(dataset.features), len(dataset.rows)):
        if not bounded[block].any():
            continue
        values = np.asarray(dataset.values[:, block])
        outside = ((values < least[block]) | (values > greatest[block])) & bounded[block]
        for own in np.flatnonzero(outside.any(axis=0)):
            yield block.start + int(own), np.flatnonzero(outside[:, own])


def _cell(dataset: Dataset, row: int, index: int) -> str:
    value = float(dataset.values[row, index])
    return f"{dataset.rows[row]}, {dataset.features[index]}: {value:g} {dataset.units[index]}".rstrip()
