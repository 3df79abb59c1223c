"""Reading a comparison of candidate plans: one column per run, and how far their results lie apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from uuid import UUID

import numpy as np

from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.offline.tables import HarmonizedTable
from harmonization_app.selectors.plan import SEVERITIES
from harmonization_app.services.harmonized_table import harmonized_table
from harmonization_app.services.run import load_diagnostics
from hub.core.errors import InvalidInput, NotFound

MOST_RUNS = 4
MOST_CELLS = 2_000_000

Diagnostics = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """One line of the table; `held_out` tells evidence on unseen scans from figures on the fitted ones."""

    title: str
    held_out: bool
    cells: tuple[Any, ...]
    note: str = ""

    @property
    def known(self) -> bool:
        return any(cell is not None for cell in self.cells)


@dataclass(frozen=True)
class Difference:
    """How far two results lie apart, in SD of the feature in the first; None where they cannot be compared here."""

    first: str
    second: str
    rows: int
    features: int
    median_sd: float | None
    high_sd: float | None
    greatest_sd: float | None
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """One candidate: its run, a letter for charts, its diagnostics and findings by severity."""

    letter: str
    run: HarmonizationRun
    diagnostics: Diagnostics
    findings: dict[str, int]


@dataclass(frozen=True)
class Comparison:
    columns: tuple[Column, ...]
    measures: tuple[Measure, ...]
    differences: tuple[Difference, ...]

    @property
    def is_final(self) -> bool:
        return all(column.run.is_final for column in self.columns)


def runs_to_compare(visible: Any, ids: Sequence[str]) -> list[HarmonizationRun]:
    """Return the runs of the queryset `visible` in the order named.

    Raises InvalidInput for too few or too many, or runs on different data, NotFound for unseen ones.
    """
    wanted = list(dict.fromkeys(item for item in ids if item))
    if not 2 <= len(wanted) <= MOST_RUNS:
        raise InvalidInput(
            f"Name two to {MOST_RUNS} runs to compare; {len(wanted)} were named.",
            errors=[{"field": "runs", "message": f"needs two to {MOST_RUNS} ids, separated by commas"}],
        )
    known = [item for item in wanted if _is_id(item)]
    related = ("plan", "algorithm_version", "feature_set", "trial")
    rows = {str(row.pk): row for row in visible.select_related(*related).filter(pk__in=known)}
    lacking = [item for item in wanted if item not in rows]
    if lacking:
        raise NotFound(f"There is no such run: {', '.join(lacking)}.")
    found = [rows[item] for item in wanted]
    if len({row.feature_set_id for row in found}) > 1:
        raise InvalidInput(
            "These runs are of different feature sets. Candidate plans are compared on the same data.",
            errors=[{"field": "runs", "message": "are of different feature sets"}],
        )
    return found


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def compare_runs(runs: Sequence[HarmonizationRun]) -> Comparison:
    """Return the runs side by side; what a run has not (it was refused, or made before) is None."""
    columns = tuple(
        Column(letter, run, load_diagnostics(run), _findings(run))
        for letter, run in zip("ABCD", runs, strict=False)
    )
    measures = [
        Measure(title, held_out, tuple(_read(reader, column) for column in columns), note)
        for title, held_out, note, reader in _MEASURES
    ]
    measures += _covariate_measures(columns)
    differences = _differences(columns) if all(run.is_final for run in runs) else []
    return Comparison(columns, tuple(item for item in measures if item.known), tuple(differences))


def _findings(run: HarmonizationRun) -> dict[str, int]:
    return {severity: sum(item["severity"] == severity for item in run.gate) for severity, _ in SEVERITIES}


def _read(reader: Callable[[Diagnostics], Any], column: Column) -> Any:
    return reader(column.diagnostics) if column.diagnostics else None


def _at(*path: str) -> Callable[[Diagnostics], Any]:
    def read(document: Diagnostics) -> Any:
        value: Any = document
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return read


def _greatest_left_out(document: Diagnostics) -> float | None:
    moves = [item["median_move_sd"] for item in document.get("stability", {}).get("left_out", [])]
    return max((move for move in moves if move is not None), default=None)


_TITLE_ETA = "Batch effect left (median partial eta²)"
_MEASURES: tuple[tuple[str, bool, str, Callable[[Diagnostics], Any]], ...] = (
    (f"{_TITLE_ETA}, before", True, "in the half not fitted", _at("held_out", "held_out_before")),
    (f"{_TITLE_ETA}, after", True, "in the half not fitted", _at("held_out", "held_out_after")),
    (f"{_TITLE_ETA}, expected of none", True, "", _at("held_out", "noise_floor")),
    (
        "Batches told apart, after (balanced accuracy)",
        True,
        "classifier on scans not fitted",
        _at("held_out", "classification", "after", "accuracy"),
    ),
    (
        "Accuracy of labels drawn by chance",
        True,
        "what chance gives",
        _at("held_out", "classification", "after", "chance"),
    ),
    (
        "Distance of batch covariances, after",
        True,
        "on scans not fitted",
        _at("held_out", "covariance", "after"),
    ),
    ("Planted effect recovered", True, "1 is all of it", _at("stability", "spike_in", "recovered")),
    (
        "Greatest median move when a batch is left out (SD)",
        True,
        "over the batches left out",
        _greatest_left_out,
    ),
    (
        "Features with a batch effect in the mean, after (q < 0.05)",
        False,
        "always looks perfect",
        _at("in_sample", "after", "summary", "mean_effect"),
    ),
    (
        "Features with a batch effect in the scale, after (q < 0.05)",
        False,
        "always looks perfect",
        _at("in_sample", "after", "summary", "scale_effect"),
    ),
    ("Median shift of a value (SD)", False, "", _at("movers", "quantiles_sd", "0.5")),
    ("95 % of values moved less than (SD)", False, "", _at("movers", "quantiles_sd", "0.95")),
    ("Largest shift of a value (SD)", False, "", _at("movers", "quantiles_sd", "1")),
    ("Positive cells made zero or negative", False, "", _at("movers", "cells_turned_non_positive")),
)


def _covariate_measures(columns: Sequence[Column]) -> list[Measure]:
    """Return for each covariate the share of features whose effect after lies in the batch-adjusted interval."""
    names: dict[str, None] = {}
    kept: list[dict[str, float]] = []
    for column in columns:
        own = _kept_shares(column.diagnostics)
        names |= dict.fromkeys(own)
        kept.append(own)
    note = "share of features whose effect after lies in the interval of the batch-adjusted one"
    return [
        Measure(f"Effect of {name} kept", False, tuple(own.get(name) for own in kept), note) for name in names
    ]


def _kept_shares(diagnostics: Diagnostics) -> dict[str, float]:
    summaries = diagnostics.get("covariate_effects", {}).get("by_covariate", [])
    shares = {
        item["covariate"]: item["agreement"]["covered"]
        for item in summaries
        if (item.get("agreement") or {}).get("covered") is not None
    }
    if shares:
        return shares
    known: dict[str, list[bool]] = {}
    for item in diagnostics.get("covariates", []):
        if item["preserved"] is not None:
            known.setdefault(item["covariate"], []).append(item["preserved"])
    return {name: sum(values) / len(values) for name, values in known.items()}


def _differences(columns: Sequence[Column]) -> list[Difference]:
    done = [column for column in columns if column.run.state == RunState.SUCCEEDED]
    if len(done) < 2:
        return []
    features = max(int(column.run.summary.get("features", 0)) for column in done)
    if features * done[0].run.feature_set.row_count > MOST_CELLS:
        reason = f"More than {MOST_CELLS:,} cells: download the data of both and compare them there."
        return [
            Difference(first.letter, second.letter, 0, 0, None, None, None, reason)
            for first, second in combinations(done, 2)
        ]
    tables = {column.letter: harmonized_table(column.run) for column in done}
    return [_difference(first, second, tables) for first, second in combinations(tables, 2)]


def _difference(first: str, second: str, tables: Mapping[str, HarmonizedTable]) -> Difference:
    one, other = tables[first], tables[second]
    lines, columns = _common(_scans(one), _scans(other)), _common(one.features, other.features)
    rows, names = lines[0], columns[0]
    if not rows or not names:
        return Difference(first, second, len(rows), len(names), None, None, None, "Nothing in common.")
    left, right = (
        table.values[np.ix_(own, kept)] for table, own, kept in zip((one, other), lines, columns, strict=True)
    )
    spread = np.nanstd(left, axis=0)
    apart = np.abs(left - right) / np.where(spread > 0, spread, 1.0)
    known = apart[np.isfinite(apart)]
    if not known.size:
        return Difference(first, second, len(rows), len(names), None, None, None, "No value in common.")
    middle, high, greatest = (float(value) for value in np.quantile(known, (0.5, 0.95, 1.0)))
    return Difference(first, second, len(rows), len(names), middle, high, greatest)


def _scans(table: HarmonizedTable) -> list[tuple[str, ...]]:
    """Return subject and visit of each row."""
    return [key[:2] for key in table.keys]


def _common(first: Sequence[Any], second: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Return where the items stand that both have, in the order of the first."""
    position = {item: index for index, item in enumerate(second)}
    shared = [index for index, item in enumerate(first) if item in position]
    return shared, [position[first[index]] for index in shared]
