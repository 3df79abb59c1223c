"""Every parameter on a method's page is explained."""

from __future__ import annotations

import pytest

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.selectors.algorithm import ParameterRow, parameter_rows
from harmonization_app.views.parameter_meanings import with_meanings


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_no_parameter_is_left_unexplained(algorithm: str) -> None:
    rows = with_meanings(parameter_rows(ALGORITHMS[algorithm].parameters_schema()))

    assert [row.name for row in rows if not row.description] == []


def test_the_schema_of_a_method_speaks_first() -> None:
    rows = with_meanings(
        [ParameterRow("seed", "integer ≥ 0", "1", "of the search"), ParameterRow("x", "", "", "")]
    )

    assert [row.description for row in rows] == ["of the search", ""]
