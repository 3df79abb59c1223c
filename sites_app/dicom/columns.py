"""The facts of many instances as columns: each distinct value once, and one index per instance.

The slices of a series share most of their values, so one JSON document of a series segment stays small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sites_app.dicom.observations import InstanceFacts, Value

FORMAT = 1
_MAPPINGS = ("parameters", "sources", "varying")
_SCALARS = tuple(item.name for item in fields(InstanceFacts) if item.name not in _MAPPINGS)
_ABSENT = -1


def facts_to_columns(facts: Sequence[InstanceFacts]) -> dict[str, Any]:
    """Return the facts as JSON-serialisable columns {"values": distinct values, "index": one per instance}.

    An index of -1 stands for a keyword the instance does not have; an index that is one number holds for all.
    """
    columns: dict[str, Any] = {"format": FORMAT, "count": len(facts)}
    for name in _SCALARS:
        columns[name] = _column([getattr(item, name) for item in facts])
    for name in _MAPPINGS:
        mappings = [getattr(item, name) for item in facts]
        keywords = dict.fromkeys(keyword for mapping in mappings for keyword in mapping)
        columns[name] = {
            keyword: _column([mapping.get(keyword, _Absent) for mapping in mappings]) for keyword in keywords
        }
    return columns


def facts_from_columns(columns: Mapping[str, Any]) -> list[InstanceFacts]:
    """Return the instances that `facts_to_columns` was given, equal in value and in type.

    Raises ValueError for columns of another format.
    """
    if columns.get("format") != FORMAT:
        raise ValueError(f"Instance columns of format {columns.get('format')!r} cannot be read.")
    count = columns["count"]
    scalars = {name: _cells(columns[name], count) for name in _SCALARS}
    mappings = {
        name: {keyword: _cells(column, count) for keyword, column in columns[name].items()}
        for name in _MAPPINGS
    }
    found = []
    for row in range(count):
        values: dict[str, Any] = {name: cells[row] for name, cells in scalars.items()}
        for name, table in mappings.items():
            values[name] = {key: cells[row] for key, cells in table.items() if cells[row] is not _Absent}
        found.append(InstanceFacts(**values))
    return found


class _Absent:
    """Stands for a keyword an instance does not have."""


def _column(cells: Sequence[Any]) -> dict[str, Any]:
    values: list[Value] = []
    known: dict[str, int] = {}
    index: list[int] = []
    previous: Any = _Absent
    for cell in cells:
        if cell is _Absent:
            index.append(_ABSENT)
        elif cell is previous:
            index.append(index[-1])
        else:
            # The JSON text tells 1, 1.0 and true apart, which compare equal in Python.
            text = f'"{cell}' if isinstance(cell, str) else json.dumps(cell)
            if text not in known:
                known[text] = len(values)
                values.append(cell)
            index.append(known[text])
        previous = cell
    same = index[0] if index and len(set(index)) == 1 else None
    return {"values": values, "index": index if same is None else same}


def _cells(column: Mapping[str, Any], count: int) -> list[Any]:
    values = [_tuples(value) for value in column["values"]]
    index = column["index"]
    indices = [index] * count if isinstance(index, int) else index
    return [_Absent if position == _ABSENT else values[position] for position in indices]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
