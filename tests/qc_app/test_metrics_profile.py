"""QC profiles: parsing with pointers, judgement, and that a missing value never passes."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.metrics.profile import (
    QC_PROFILE_SCHEMA,
    Band,
    MetricVerdict,
    ProfileInvalid,
    judge,
    overall,
    parse_profile,
)
from qc_app.metrics.registry import METRICS, Metric


def _profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schema": "hub.qc-profile/1", "name": "Trial", "modalities": {"MR": list(rules)}, **more}


SNR = {"metric": "snr_residual", "warn": {"min": 20}, "fail": {"min": 10}}


def _judge(value: float | None, rule: dict[str, Any] = SNR, reason: str | None = None) -> MetricVerdict:
    metric = Metric(rule["metric"], value, "1", reason)
    (verdict,) = judge(parse_profile(_profile(rule)), "MR", [metric], None)
    return verdict


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(25.0, "pass"), (20.0, "pass"), (19.999, "warn"), (10.0, "warn"), (9.999, "fail"), (-1.0, "fail")],
)
def test_bounds_are_inclusive_and_fail_outranks_warn(value: float, outcome: str) -> None:
    assert _judge(value).outcome == outcome


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_metric_without_a_finite_value_is_never_a_pass(value: float | None) -> None:
    verdict = _judge(value, reason="no background")

    assert verdict.outcome == "not_evaluable"
    assert "no background" in verdict.detail
    assert overall([verdict]) == "not_evaluable"


def test_a_metric_that_was_not_measured_is_not_evaluable() -> None:
    (verdict,) = judge(parse_profile(_profile(SNR)), "MR", [], None)

    assert verdict.outcome == "not_evaluable"
    assert overall([verdict]) == "not_evaluable"


def test_an_optional_metric_without_a_value_does_not_count_but_alone_is_no_pass() -> None:
    optional = _judge(None, {**SNR, "required": False})
    passed = _judge(30.0)

    assert optional.outcome == "not_evaluable"
    assert overall([optional, passed]) == "pass"
    assert overall([optional]) == "not_evaluable"


def test_a_modality_without_thresholds_is_not_evaluable() -> None:
    spec = parse_profile(_profile(SNR))

    assert judge(spec, "CT", [Metric("air_hu", -1000.0, "HU")], None) == ()
    assert overall(()) == "not_evaluable"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (("pass", "pass"), "pass"),
        (("pass", "warn"), "warn"),
        (("warn", "not_evaluable"), "not_evaluable"),
        (("fail", "not_evaluable"), "fail"),
        (("warn", "fail", "pass"), "fail"),
    ],
)
def test_the_overall_outcome(outcomes: tuple[Any, ...], expected: str) -> None:
    verdicts = [MetricVerdict("efc", "", 0.5, "1", outcome, None, None, True, "") for outcome in outcomes]

    assert overall(verdicts) == expected


def test_an_expected_series_replaces_the_rule_of_its_modality_metric_by_metric() -> None:
    document = _profile(
        SNR, {"metric": "efc", "warn": {"max": 0.7}}, series={"t1": [{**SNR, "warn": {"min": 60}}]}
    )
    spec = parse_profile(document)
    metrics = [Metric("snr_residual", 50.0, "1"), Metric("efc", 0.5, "1")]

    general = {v.metric: v.outcome for v in judge(spec, "MR", metrics, "t2")}
    special = {v.metric: v.outcome for v in judge(spec, "MR", metrics, "t1")}

    assert general == {"snr_residual": "pass", "efc": "pass"}
    assert special == {"snr_residual": "warn", "efc": "pass"}


def test_a_verdict_says_what_was_measured_and_allowed() -> None:
    verdict = _judge(8.0)

    assert verdict.fail == Band(10.0, None)
    assert verdict.detail == "8 is outside the fail band (at least 10)."
    assert verdict.label == METRICS["snr_residual"].label


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda d: d.pop("name"), ""),
        (lambda d: d.update(schema="hub.qc-profile/2"), "/schema"),
        (lambda d: d.update(extra=1), ""),
        (lambda d: d["modalities"].update(XX=[]), "/modalities"),
        (lambda d: d["modalities"]["MR"][0].update(metric="sharpness"), "/modalities/MR/0/metric"),
        (lambda d: d["modalities"]["MR"][0].update(metric="air_hu"), "/modalities/MR/0/metric"),
        (lambda d: d["modalities"]["MR"].append(dict(SNR)), "/modalities/MR/1/metric"),
        (lambda d: d["modalities"]["MR"][0].update(warn={"min": "20"}), "/modalities/MR/0/warn/min"),
        (lambda d: d["modalities"]["MR"][0].update(warn={}), "/modalities/MR/0/warn"),
        (lambda d: d["modalities"]["MR"][0].update(warn={"min": 30, "max": 20}), "/modalities/MR/0/warn"),
        (lambda d: d["modalities"]["MR"][0].update(warn={"min": 5}), "/modalities/MR/0/warn"),
        (lambda d: d["modalities"]["MR"][0].update(fail={"min": math.nan}), "/modalities/MR/0/fail"),
        (lambda d: d["modalities"]["MR"].append({"metric": "efc"}), "/modalities/MR/1"),
        (lambda d: d.update(series={"a/b": [{"metric": "efc", "warn": {}}]}), "/series/a~1b/0/warn"),
    ],
)
def test_a_fault_is_named_by_its_json_pointer(change: Any, pointer: str) -> None:
    document = copy.deepcopy(_profile(SNR))
    change(document)

    with pytest.raises(ProfileInvalid) as refused:
        parse_profile(document)

    assert pointer in [where for where, _ in refused.value.problems]


@pytest.mark.parametrize("document", [None, [], "x", 3, {}])
def test_what_is_no_profile_is_refused(document: Any) -> None:
    with pytest.raises(ProfileInvalid):
        parse_profile(document)


def test_the_schema_is_valid_and_the_default_profile_obeys_it() -> None:
    Draft202012Validator.check_schema(QC_PROFILE_SCHEMA)

    spec = parse_profile(DEFAULT_PROFILE)

    assert set(spec.modalities) == {"MR", "CT", "PT"}
    for modality in spec.modalities:
        required = {rule.metric for rule in spec.rules(modality, None) if rule.required}
        assert {"missing_slices", "saturated_fraction"} <= required
