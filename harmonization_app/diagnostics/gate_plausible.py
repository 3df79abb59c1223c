"""Plausible ranges: those the plan gives by feature or unit, never guessed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding
from harmonization_app.diagnostics.wording import listed

Range = tuple[float | None, float | None]


def check_plausible(dataset: Dataset, ranges: Mapping[str, Range]) -> list[Finding]:
    """Return a stop for values outside `ranges`, given by feature name or by unit; the name wins.

    A range is (least, greatest), either None where open. Missing cells are not judged.
    """
    rows: set[int] = set()
    columns: list[str] = []
    shown: list[str] = []
    for index, (name, unit) in enumerate(zip(dataset.features, dataset.units, strict=True)):
        planned = ranges.get(name, ranges.get(unit) if unit else None)
        if planned is None:
            continue
        least, greatest = planned
        values = dataset.values[:, index]
        outside = np.zeros(len(values), dtype=bool)
        if least is not None:
            outside |= values < least
        if greatest is not None:
            outside |= values > greatest
        found = np.flatnonzero(outside)
        if found.size:
            rows.update(found.tolist())
            columns.append(name)
            shown += [f"{dataset.rows[i]}, {name}: {values[i]:g} {unit}".rstrip() for i in found]
    if not rows:
        return []
    message = (
        f"{len(shown)} value(s) lie outside the ranges of the plan: {listed(shown)}. Correct or empty the cells, check "
        "the units, or leave the rows out."
    )
    names = tuple(dataset.rows[i] for i in sorted(rows))
    return [Finding("implausible_value", "stop", message, rows=names, columns=tuple(columns))]
