"""No published case is left out: each of the reference index belongs to a method that must reproduce it."""

from __future__ import annotations

import pytest

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.verification.reference import CASES_BY_METHOD, reference_cases

pytestmark = pytest.mark.reference


def test_every_published_case_is_loaded_by_a_method(reference_data) -> None:
    folder = reference_data / "harmonization"
    index = {line.split("\t")[0] for line in (folder / "INDEX.tsv").read_text("utf-8").splitlines()[1:]}

    loaded = {case.name.split("/")[0] for name in CASES_BY_METHOD for case in reference_cases(folder, name)}

    assert loaded == index
    assert set(CASES_BY_METHOD) <= set(ALGORITHMS)


def test_no_case_is_compared_more_loosely_than_its_index_says(reference_data) -> None:
    folder = reference_data / "harmonization"
    lines = (folder / "INDEX.tsv").read_text("utf-8").splitlines()[1:]
    published = {line.split("\t")[0]: float(line.split("\t")[1]) for line in lines}

    for name in set(CASES_BY_METHOD) - {"neurocombat"}:
        assert ALGORITHMS[name].tolerance_sd <= min(
            published[case.name.split("/")[0]] for case in reference_cases(folder, name)
        ), name
        for case in reference_cases(folder, name):
            assert case.tolerance_sd <= published[case.name.split("/")[0]]
