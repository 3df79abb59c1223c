"""No published case is left out: each of the reference index belongs to a method that must reproduce it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms import verification
from harmonization_app.algorithms.base import Finding, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.verification import verify
from harmonization_app.algorithms.verification.reference import CASES_BY_METHOD, reference_cases
from hub.core.errors import InvalidInput


@pytest.mark.reference
def test_every_published_case_is_loaded_by_a_method(reference_data) -> None:
    folder = reference_data / "harmonization"
    index = {line.split("\t")[0] for line in (folder / "INDEX.tsv").read_text("utf-8").splitlines()[1:]}

    loaded = {case.name.split("/")[0] for name in CASES_BY_METHOD for case in reference_cases(folder, name)}

    assert loaded == index
    assert set(CASES_BY_METHOD) <= set(ALGORITHMS)


@pytest.mark.reference
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


@pytest.mark.reference
@pytest.mark.parametrize("name", sorted(CASES_BY_METHOD))
def test_a_case_wrong_by_twice_its_tolerance_fails_and_by_a_tenth_passes(
    name, reference_data, monkeypatch
) -> None:
    case = next(iter(reference_cases(reference_data / "harmonization", name)))
    tolerance = max(case.tolerance_sd, ALGORITHMS[name].tolerance_sd)
    outcomes = {}
    for part in (0.1, 2.0):
        moved = case.expected.copy()
        raw = case.dataset.values[list(case.test)] if case.train else case.dataset.values
        at = tuple(np.argwhere(np.isfinite(moved))[7])
        moved[at] += part * tolerance * np.nanstd(raw[:, at[1]])
        wrong = replace(case, expected=moved)
        monkeypatch.setattr(verification, "reference_cases", lambda *_, wrong=wrong: [wrong])
        report = verify(name, reference_data)
        outcomes[part] = report.passed, report.with_reference_set

    assert outcomes == {0.1: (True, True), 2.0: (False, True)}


def test_a_reference_set_that_lacks_a_kind_of_case_is_refused(tmp_path) -> None:
    (tmp_path / "INDEX.tsv").write_text("case\ttolerance\nh_covbat__ct68\t1e-09\n", "utf-8")

    with pytest.raises(InvalidInput, match=r"lacks the case\(s\) a0, a, b, .* of combat; give the whole"):
        verify("combat", tmp_path)


def test_a_method_without_published_cases_says_so(tmp_path) -> None:
    (tmp_path / "INDEX.tsv").write_text("case\ttolerance\nh_covbat__ct68\t1e-09\n", "utf-8")

    report = verify("z-score", tmp_path)

    assert (report.passed, report.with_reference_set) == (True, False)


@pytest.mark.parametrize(
    "findings", [[], [Finding("missing_value", "stop", "no value")]], ids=["none", "another"]
)
def test_a_refusal_that_the_method_does_not_name_as_its_own_is_a_failure(findings, monkeypatch) -> None:
    def refuse(*_):
        raise HarmonizationRefused(findings)

    monkeypatch.setattr(Combat, "fit", refuse)

    report = verify("combat")

    assert not report.passed
    assert not any(case.refused or case.passed for case in report.cases)
