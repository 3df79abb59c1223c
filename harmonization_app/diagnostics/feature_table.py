"""Feature tables as they come from a person: a CSV read strictly, each fault named by row and column.

Expected: UTF-8 (a byte-order mark is accepted), comma as delimiter, point as decimal sign, one header row, then
optionally one row of units whose subject cell is "unit" or "units". An empty cell, NA, N/A or NaN is missing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.diagnostics.csv_reading import (
    MISSING_CELLS,
    Faults,
    FeatureTableInvalid,
    Record,
    check_header,
    check_labels,
    read_records,
    read_values,
)
from hub.core.errors import InvalidInput

__all__ = [
    "CsvLayout",
    "FeatureTable",
    "FeatureTableInvalid",
    "RowLabels",
    "read_feature_csv",
    "read_row_labels",
]

UNIT_ROW_MARKS = frozenset({"unit", "units"})
ROW_KEY_SEPARATOR = "|"
DECIMAL_COMMAS = "Decimal commas split cells: use a decimal point."


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """Which columns are what: every column not named here is a feature.

    `metadata` columns (site, scanner, age, ...) are kept as text. `units` gives units by feature and wins over a
    units row. `subjects` and `visits` are the known codes; None accepts any. `as_stored` takes labels and names as they
    are, for a table that was taken before.
    """

    subject: str = "subject"
    visit: str | None = None
    metadata: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    units_required: bool = True
    subjects: Collection[str] | None = None
    visits: Collection[str] | None = None
    as_stored: bool = False


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Measurements [rows x features] in canonical order: rows by subject and visit, features by name.

    `visits` is empty text where the table has no visit column. NaN is a missing cell.
    """

    subjects: tuple[str, ...]
    visits: tuple[str, ...]
    metadata: Mapping[str, tuple[str, ...]]
    features: tuple[str, ...]
    units: tuple[str, ...]
    values: FloatArray

    @property
    def rows(self) -> tuple[str, ...]:
        """One key per row, subject and visit."""
        pairs = zip(self.subjects, self.visits, strict=True)
        return tuple(f"{subject}{ROW_KEY_SEPARATOR}{visit}" if visit else subject for subject, visit in pairs)

    @cached_property
    def canonical(self) -> bytes:
        """The table as canonical CSV bytes: sorted, a units row, 17 significant digits, line feeds."""
        return b"".join(self._lines())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        whole = hashlib.sha256()
        for line in self._lines():
            whole.update(line)
        return whole.hexdigest()

    def with_values(self, values: FloatArray) -> FeatureTable:
        """Return the table with other values of the same shape. Raises InvalidInput for another shape."""
        if values.shape != self.values.shape:
            raise InvalidInput(f"The values have shape {values.shape}, the table {self.values.shape}.")
        return replace(self, values=np.ascontiguousarray(values, dtype=np.float64))

    def to_dataset(self, batch: str, covariates: Sequence[str] = ()) -> Dataset:
        """Return the dataset with a metadata column as batch and others as covariates. Raises InvalidInput."""
        lacking = [name for name in (batch, *covariates) if name not in self.metadata]
        if lacking:
            known = ", ".join(sorted(self.metadata)) or "none"
            raise InvalidInput(
                f"The feature table has no column {', '.join(lacking)}; its metadata are: {known}."
            )
        columns = {name: self.metadata[name] for name in covariates}
        labels = tuple(label or None for label in self.metadata[batch])
        return Dataset(self.values, self.features, self.rows, labels, columns, self.units)

    def _lines(self) -> Iterator[bytes]:
        names = sorted(self.metadata)
        yield csv_line(["subject", "visit", *names, *self.features])
        yield csv_line(["unit", *[""] * (len(names) + 1), *self.units])
        for index, (subject, visit) in enumerate(zip(self.subjects, self.visits, strict=True)):
            own = [subject, visit, *(self.metadata[name][index] for name in names)]
            yield csv_line([*own, *number_cells(self.values[index])])


def read_feature_csv(data: bytes, layout: CsvLayout = CsvLayout()) -> FeatureTable:
    """Return the table in `data`. Raises FeatureTableInvalid naming every fault (the first hundred) by row, column."""
    records = read_records(data)
    faults = Faults()
    if not records:
        faults.add("table", "The file is empty; it needs a header row and one row per scan.")
        faults.stop()
    header = [name.strip() for name in records[0][1]]
    columns = _Columns.find(header, layout, faults)
    body = records[1:]
    unit_row: list[str] = []
    if body and body[0][1] and body[0][1][columns.subject].strip().lower() in UNIT_ROW_MARKS:
        unit_row = [cell.strip() for cell in body[0][1]]
        body = body[1:]
    body = _whole_rows(body, header, faults)
    units = _units(header, columns, unit_row, layout, faults)
    subjects, visits = _keys(body, header, columns, layout, faults)
    values = read_values(body, header, columns.features, faults)
    faults.stop()
    order = sorted(range(len(body)), key=lambda i: (subjects[i], visits[i]))
    feature_order = sorted(range(len(columns.features)), key=lambda i: header[columns.features[i]])
    return FeatureTable(
        subjects=tuple(subjects[i] for i in order),
        visits=tuple(visits[i] for i in order),
        metadata={name: _texts(body, at, order) for name, at in columns.metadata.items()},
        features=tuple(header[columns.features[i]] for i in feature_order),
        units=tuple(units[i] for i in feature_order),
        values=np.ascontiguousarray(values[np.ix_(order, feature_order)]),
    )


@dataclass(frozen=True, slots=True)
class RowLabels:
    """The labels of a matrix's rows in canonical order; `order[i]` is the line of the file that became row i."""

    subjects: tuple[str, ...]
    visits: tuple[str, ...]
    metadata: Mapping[str, tuple[str, ...]]
    order: tuple[int, ...]


def read_row_labels(data: bytes, layout: CsvLayout) -> RowLabels:
    """Return the labels in a CSV that has no features: keys, and every other column as text.

    For measurements that come as a matrix beside it. Raises FeatureTableInvalid naming row and column.
    """
    records = read_records(data)
    faults = Faults()
    if not records:
        faults.add("table", "The file of labels is empty; it needs a header row and one row per scan.")
        faults.stop()
    header = [name.strip() for name in records[0][1]]
    names = tuple(name for name in header if name not in (layout.subject, layout.visit))
    columns = _Columns.find(header, replace(layout, metadata=names), faults, features_required=False)
    body = _whole_rows(records[1:], header, faults)
    subjects, visits = _keys(body, header, columns, layout, faults)
    faults.stop()
    order = sorted(range(len(body)), key=lambda i: (subjects[i], visits[i]))
    return RowLabels(
        subjects=tuple(subjects[i] for i in order),
        visits=tuple(visits[i] for i in order),
        metadata={name: _texts(body, at, order) for name, at in columns.metadata.items()},
        order=tuple(order),
    )


def _texts(body: list[Record], at: int, order: list[int]) -> tuple[str, ...]:
    cells = (body[index][1][at].strip() for index in order)
    return tuple("" if cell in MISSING_CELLS else cell for cell in cells)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Positions of the columns in the file."""

    subject: int
    visit: int | None
    metadata: Mapping[str, int]
    features: tuple[int, ...]

    @classmethod
    def find(
        cls, header: list[str], layout: CsvLayout, faults: Faults, *, features_required: bool = True
    ) -> _Columns:
        """Return the positions, or stop with what is wrong with the header."""
        check_header(header, faults, as_stored=layout.as_stored)
        position = {name: index for index, name in enumerate(header)}
        wanted = [layout.subject, *([layout.visit] if layout.visit else []), *layout.metadata]
        for name in wanted:
            if name not in position:
                faults.add(
                    "header", f"There is no column {name!r}; it is needed. Name it so, or change the layout."
                )
        faults.stop()
        features = tuple(index for index, name in enumerate(header) if name not in set(wanted))
        if features_required and not features:
            faults.add("header", "There is no feature column besides the keys and metadata.")
        faults.stop()
        visit = position[layout.visit] if layout.visit else None
        return cls(
            position[layout.subject], visit, {name: position[name] for name in layout.metadata}, features
        )


def _whole_rows(body: list[Record], header: list[str], faults: Faults) -> list[Record]:
    """Return the rows with as many cells as the header; stop when some have not."""
    if not body:
        faults.add("table", "There is no row below the header.")
    for line, cells in body:
        if len(cells) != len(header):
            hint = ""
            if len(cells) > len(header):
                blank = not any(cell.strip() for cell in cells[len(header) :])
                hint = " Remove the commas at its end." if blank else f" {DECIMAL_COMMAS}"
            faults.add(f"row {line}", f"The row has {len(cells)} cells, the header {len(header)}.{hint}")
    faults.stop()
    return body


def _units(
    header: list[str], columns: _Columns, unit_row: list[str], layout: CsvLayout, faults: Faults
) -> list[str]:
    names = [header[index] for index in columns.features]
    unknown = sorted(set(layout.units) - set(names))
    for name in unknown:
        faults.add(f"units, {name}", "A unit is given for a feature that the table lacks.")
    units = []
    for index, name in zip(columns.features, names, strict=True):
        unit = layout.units.get(name) or (unit_row[index] if index < len(unit_row) else "")
        if not unit and layout.units_required:
            faults.add(
                f"units, column {name}",
                'The unit is missing; write it in a units row ("1" for a plain number).',
            )
        units.append(unit)
    return units


def _keys(
    body: list[Record], header: list[str], columns: _Columns, layout: CsvLayout, faults: Faults
) -> tuple[list[str], list[str]]:
    subjects = [cells[columns.subject].strip() for _, cells in body]
    visits = ["" if columns.visit is None else cells[columns.visit].strip() for _, cells in body]
    if not layout.as_stored:
        keys = (columns.subject, *([] if columns.visit is None else [columns.visit]))
        check_labels(body, header, (*keys, *columns.metadata.values()), faults)
    first: dict[tuple[str, str], int] = {}
    for (line, _), subject, visit in zip(body, subjects, visits, strict=True):
        if not subject:
            faults.add(f"row {line}, column {layout.subject}", "The subject is missing.")
        elif layout.subjects is not None and subject not in layout.subjects:
            faults.add(f"row {line}, column {layout.subject}", f"The trial has no subject {subject!r}.")
        if columns.visit is not None and not visit:
            faults.add(f"row {line}, column {layout.visit}", "The visit is missing.")
        elif columns.visit is not None and layout.visits is not None and visit not in layout.visits:
            faults.add(f"row {line}, column {layout.visit}", f"The trial has no visit {visit!r}.")
        key = (subject, visit)
        if subject and key in first:
            named = f"subject {subject}" + (f", visit {visit}" if visit else "")
            faults.add(f"row {line}", f"{named} is in row {first[key]} already; keep one of the two.")
        first.setdefault(key, line)
    return subjects, visits


def number_cells(values: FloatArray) -> list[str]:
    """Return the values of one row as cells: 17 significant digits, empty where missing."""
    return ["" if math.isnan(cell) else f"{cell + 0.0:.17g}" for cell in values.tolist()]


def csv_line(cells: Sequence[str]) -> bytes:
    """Return one line of CSV, quoted where needed."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()
