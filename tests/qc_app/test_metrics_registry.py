"""The registry and the documentation say the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from qc_app.metrics.registry import METRICS, METRICS_VERSION, measured, not_computable

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_documentation_lists_every_metric_with_unit_and_formula() -> None:
    text = DOCUMENT.read_text()
    rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}

    assert f"Version {METRICS_VERSION}" in text
    assert set(rows) == set(METRICS)
    for name, definition in METRICS.items():
        cells = [cell.strip() for cell in rows[name].split(" | ")]
        assert cells[1:3] == [definition.label, definition.unit]
        assert cells[4] == definition.formula.replace("|", "&#124;")
        assert len(cells[6].strip(" |")) > 5


def test_definitions_are_whole() -> None:
    for name, definition in METRICS.items():
        assert definition.name == name
        assert definition.label and definition.unit and definition.formula
        assert set(definition.modalities) <= {"MR", "CT", "PT"}
        assert (definition.better == "target") == (definition.target is not None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_metric_carries_a_value_that_is_not_finite(value: float) -> None:
    metric = measured("efc", value)

    assert metric.value is None
    assert metric.reason


def test_a_metric_without_a_value_keeps_its_reason_and_unit() -> None:
    metric = not_computable("air_hu", "no air")

    assert (metric.value, metric.reason, metric.unit) == (None, "no air", "HU")
