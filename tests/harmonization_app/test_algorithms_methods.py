"""What every method owes: its packaged suite, the published cases, a model that can be stored, honest refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.verification import cross_check, max_difference_sd, verify
from harmonization_app.algorithms.verification.methods import method_ids
from harmonization_app.algorithms.verification.reference import CASES_BY_METHOD
from harmonization_app.algorithms.verification.suite import build_method_suite, load_suite

CASES = [(name, case) for name in method_ids() for case in load_suite(name)]
WITH_APPLY = [name for name in method_ids() if ALGORITHMS[name].capabilities.train_apply]


def _first(name: str):
    return next(case for case in load_suite(name) if case.new is None)


def test_every_method_has_its_suite() -> None:
    assert set(ALGORITHMS) == {"combat", "neurocombat", *method_ids()}
    for name in method_ids():
        assert load_suite(name), name


@pytest.mark.parametrize("name", method_ids())
def test_stored_suite_is_that_of_the_plain_implementation(name) -> None:
    built = build_method_suite(name)

    for stored, case in zip(load_suite(name), built["cases"], strict=True):
        raw = (stored.new or stored.dataset).values
        expected = np.array(case["expected"], dtype=np.float64)
        assert stored.name == case["name"]
        assert max_difference_sd(stored.expected, expected, raw) < ALGORITHMS[name].tolerance_sd / 10


@pytest.mark.parametrize("name", method_ids())
def test_method_passes_its_own_verification(name) -> None:
    report = verify(name)

    assert report.passed
    assert not any(case.refused for case in report.cases)


@pytest.mark.reference
@pytest.mark.parametrize("name", [name for name in method_ids() if CASES_BY_METHOD.get(name)])
def test_published_cases_are_reproduced(name, reference_data) -> None:
    report = verify(name, reference_data / "harmonization")

    published = [case for case in report.cases if case.case.startswith("reference/")]
    assert {case.case.split("/")[1].split("_")[0] for case in published} == set(CASES_BY_METHOD[name])
    assert [case for case in published if not case.passed] == []


@pytest.mark.parametrize("name", method_ids())
def test_verification_fails_when_one_number_is_wrong(name, monkeypatch) -> None:
    algorithm = ALGORITHMS[name]
    original = type(algorithm).harmonize

    def wrong(self, dataset, specification):
        result = original(self, dataset, specification)
        values = result.values.copy()
        at = tuple(np.argwhere(np.isfinite(values))[0])
        values[at] += 10 * self.tolerance_sd * np.nanstd(dataset.values[:, at[1]])
        return replace(result, values=values)

    monkeypatch.setattr(type(algorithm), "harmonize", wrong)

    assert not verify(name).passed


@pytest.mark.parametrize(("name", "case"), CASES, ids=lambda item: getattr(item, "name", item))
def test_result_agrees_with_its_cross_check(name, case) -> None:
    result = ALGORITHMS[name].harmonize(case.dataset, case.specification)

    assert cross_check(case.dataset, result, ALGORITHMS[name].tolerance_sd).passed


@pytest.mark.parametrize("name", method_ids())
def test_unknown_option_is_refused(name) -> None:
    case = _first(name)
    options = {**case.specification.options, "no_such_option": 1}

    with pytest.raises(HarmonizationRefused, match="no_such_option"):
        ALGORITHMS[name].harmonize(case.dataset, replace(case.specification, options=options))


@pytest.mark.parametrize("name", method_ids())
def test_model_holds_no_row_and_is_stored_alike(name) -> None:
    case = _first(name)
    model = ALGORITHMS[name].fit(case.dataset, case.specification)

    files = save_model(model)

    assert save_model(load_model(files)) == files
    assert not any(f'"{row}"'.encode() in files.document for row in case.dataset.rows)


@pytest.mark.parametrize("name", WITH_APPLY)
def test_stored_model_corrects_each_scan_as_when_fitted(name) -> None:
    case = _first(name)
    result = ALGORITHMS[name].harmonize(case.dataset, case.specification)
    rows = np.arange(0, len(case.dataset.rows), 3)
    if ALGORITHMS[name].capabilities.longitudinal:
        # A subject's random effects are predicted from the scans given: whole subjects come back as when fitted.
        subjects = np.array(case.dataset.covariates[str(case.specification.subject)])
        rows = np.flatnonzero(np.isin(subjects, subjects[rows[:4]]))

    part = ALGORITHMS[name].apply(load_model(save_model(result.model)), case.dataset.select(rows))

    assert max_difference_sd(part.values, result.values[rows], case.dataset.values) < 1e-11


@pytest.mark.parametrize("name", WITH_APPLY)
def test_missing_cells_are_refused_or_stay_missing(name) -> None:
    case = _first(name)
    algorithm = ALGORITHMS[name]
    values = case.dataset.values.copy()
    values[0, 1] = np.nan
    holed = case.dataset.with_values(values)
    model = algorithm.fit(case.dataset, case.specification)

    if not algorithm.capabilities.missing_values:
        with pytest.raises(HarmonizationRefused, match="missing"):
            algorithm.harmonize(holed, case.specification)
        with pytest.raises(HarmonizationRefused, match="missing"):
            algorithm.apply(model, holed)
        return
    assert np.argwhere(np.isnan(algorithm.harmonize(holed, case.specification).values)).tolist() == [[0, 1]]
    assert np.argwhere(np.isnan(algorithm.apply(model, holed).values)).tolist() == [[0, 1]]


@pytest.mark.parametrize("name", method_ids())
def test_infinite_cell_is_refused_by_row_and_feature(name) -> None:
    case = _first(name)
    values = case.dataset.values.copy()
    values[2, 1] = np.inf

    with pytest.raises(HarmonizationRefused) as refusal:
        ALGORITHMS[name].harmonize(case.dataset.with_values(values), case.specification)

    assert case.dataset.rows[2] in refusal.value.detail
    assert case.dataset.features[1] in refusal.value.detail


@pytest.mark.parametrize("name", method_ids())
def test_diagnosis_of_a_result_can_be_written_as_json(name) -> None:
    import json

    case = _first(name)
    algorithm = ALGORITHMS[name]
    result = algorithm.harmonize(case.dataset, case.specification)

    report = algorithm.diagnose(case.dataset, case.specification, result).to_json()

    assert report["scans"] == len(case.dataset.rows)
    json.dumps(report)


@pytest.mark.parametrize("name", method_ids())
def test_planned_feature_that_the_table_lacks_is_a_finding(name) -> None:
    case = _first(name)
    plan = replace(case.specification, features=(*case.dataset.features, "no_such_region"), pools=())

    findings = ALGORITHMS[name].validate(case.dataset, plan)

    assert any("no_such_region" in finding.columns for finding in findings if finding.severity == "stop")


@pytest.mark.parametrize("factor", [1e200, 1e-200])
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_values_beyond_the_range_of_squares_are_refused(name, factor) -> None:
    cases = load_suite() if name in ("combat", "neurocombat") else load_suite(name)
    case = next(case for case in cases if case.new is None)
    scaled = case.dataset.with_values(case.dataset.values * factor)

    with pytest.raises(HarmonizationRefused), np.errstate(all="ignore"):
        ALGORITHMS[name].harmonize(scaled, case.specification)
