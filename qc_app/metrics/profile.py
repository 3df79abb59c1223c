"""QC profiles: which metrics a trial asks for, within which bounds, and the judgement of a series against them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonschema import Draft202012Validator, ValidationError

from hub.core.errors import HubError
from qc_app.metrics.registry import METRICS, Metric

Outcome = Literal["pass", "warn", "fail", "not_evaluable"]
PROFILE_SCHEMA_NAME = "hub.qc-profile/1"
MODALITIES = ("MR", "CT", "PT")

_BAND = {
    "type": "object",
    "additionalProperties": False,
    "description": "Inclusive bounds; a side that is left out is open.",
    "properties": {"min": {"type": "number"}, "max": {"type": "number"}},
    "minProperties": 1,
}
_RULES = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["metric"],
        "properties": {
            "metric": {"type": "string", "enum": sorted(METRICS)},
            "required": {"type": "boolean", "description": "A required metric without a value is not evaluable."},
            "warn": {**_BAND, "description": "Outside this band the outcome is warn."},
            "fail": {**_BAND, "description": "Outside this band the outcome is fail."},
            "note": {"type": "string", "maxLength": 500},
        },
        "anyOf": [{"required": ["warn"]}, {"required": ["fail"]}, {"properties": {"required": {"const": True}},
                                                                   "required": ["required"]}],
    },
}  # fmt: skip

QC_PROFILE_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:hub:schema:qc-profile:1",
    "title": "QC profile",
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "name", "modalities"],
    "properties": {
        "schema": {"const": PROFILE_SCHEMA_NAME},
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "description": {"type": "string", "maxLength": 4000},
        "modalities": {
            "type": "object",
            "description": "Rules of all series of a modality.",
            "additionalProperties": False,
            "properties": {modality: _RULES for modality in MODALITIES},
        },
        "series": {
            "type": "object",
            "description": "Rules of one expected series (by its protocol key); each replaces the modality's rule "
            "for the same metric.",
            "additionalProperties": _RULES,
        },
    },
}
_VALIDATOR = Draft202012Validator(QC_PROFILE_SCHEMA)


class ProfileInvalid(HubError):
    """The QC profile is refused; `errors` pairs a JSON pointer with a sentence for every fault."""

    code = "qc_profile_invalid"
    title = "The QC profile is not valid"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        detail = "; ".join(f"{pointer or '/'}: {message}" for pointer, message in problems[:5])
        super().__init__(
            detail, errors=[{"field": pointer, "message": message} for pointer, message in problems]
        )


@dataclass(frozen=True, slots=True)
class Band:
    """Inclusive bounds; None leaves a side open."""

    low: float | None = None
    high: float | None = None

    def contains(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.low is not None else f"at most {self.high:g}"


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """The bounds of one metric."""

    metric: str
    required: bool
    warn: Band | None
    fail: Band | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class QCProfileSpec:
    """A parsed QC profile: rules by modality, and by expected series where the trial sets its own."""

    name: str
    modalities: Mapping[str, tuple[ThresholdRule, ...]]
    series: Mapping[str, tuple[ThresholdRule, ...]] = field(default_factory=dict)
    description: str = ""

    def rules(self, modality: str, expected_key: str | None) -> tuple[ThresholdRule, ...]:
        """Return the rules of a series; those of the expected series replace the modality's for the same metric."""
        chosen = {rule.metric: rule for rule in self.modalities.get(modality, ())}
        if expected_key is not None:
            chosen |= {rule.metric: rule for rule in self.series.get(expected_key, ())}
        return tuple(chosen[name] for name in METRICS if name in chosen)


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """The judgement of one metric: what was measured, what is allowed, and why."""

    metric: str
    label: str
    value: float | None
    unit: str
    outcome: Outcome
    warn: Band | None
    fail: Band | None
    required: bool
    detail: str
    slices: tuple[int, ...] = ()


def parse_profile(document: Any) -> QCProfileSpec:
    """Return the profile in a JSON document.

    Raises ProfileInvalid with a JSON pointer (RFC 6901) and a sentence for every fault.
    """
    problems = [
        (_pointer(error.absolute_path), _message(error))
        for error in sorted(
            _VALIDATOR.iter_errors(document), key=lambda e: [str(part) for part in e.absolute_path]
        )
    ]
    if problems:
        raise ProfileInvalid(problems)
    modalities = {
        name: _parse_rules(rules, ("modalities", name), name, problems)
        for name, rules in document["modalities"].items()
    }
    series = {
        key: _parse_rules(rules, ("series", key), None, problems)
        for key, rules in document.get("series", {}).items()
    }
    if problems:
        raise ProfileInvalid(problems)
    return QCProfileSpec(document["name"], modalities, series, document.get("description", ""))


def _message(error: ValidationError) -> str:
    if error.validator == "enum":
        return f"{str(error.instance)[:60]!r} is no metric of this hub"
    if error.validator == "anyOf":
        return "a rule needs a warn band, a fail band, or required: true"
    return error.message[:300]


def _pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _parse_rules(
    rules: Sequence[Mapping[str, Any]],
    path: tuple[str, ...],
    modality: str | None,
    problems: list[tuple[str, str]],
) -> tuple[ThresholdRule, ...]:
    parsed: list[ThresholdRule] = []
    for index, rule in enumerate(rules):
        pointer = _pointer((*path, index))
        name = rule["metric"]
        if any(other.metric == name for other in parsed):
            problems.append((f"{pointer}/metric", f"{name} has two rules here; keep one"))
        if modality is not None and modality not in METRICS[name].modalities:
            problems.append((f"{pointer}/metric", f"{name} is not measured for {modality}"))
        warn, fail = (_parse_band(rule.get(kind), f"{pointer}/{kind}", problems) for kind in ("warn", "fail"))
        if warn is not None and fail is not None and not _inside(warn, fail):
            problems.append((f"{pointer}/warn", "the warn band must lie inside the fail band"))
        parsed.append(ThresholdRule(name, rule.get("required", True), warn, fail, rule.get("note", "")))
    return tuple(parsed)


def _parse_band(
    band: Mapping[str, float] | None, pointer: str, problems: list[tuple[str, str]]
) -> Band | None:
    if band is None:
        return None
    low, high = band.get("min"), band.get("max")
    if any(side is not None and not math.isfinite(side) for side in (low, high)):
        problems.append((pointer, "a bound must be a finite number"))
    elif low is not None and high is not None and low > high:
        problems.append((pointer, "min is larger than max"))
    return Band(low, high)


def _inside(inner: Band, outer: Band) -> bool:
    low_ok = inner.low is None or outer.low is None or inner.low >= outer.low
    high_ok = inner.high is None or outer.high is None or inner.high <= outer.high
    return low_ok and high_ok


def judge(
    spec: QCProfileSpec, modality: str, metrics: Iterable[Metric], expected_key: str | None
) -> tuple[MetricVerdict, ...]:
    """Judge a series: one verdict for every metric that the profile names, in the registry's order.

    A metric without a value is never a pass: not_evaluable, with the reason. The profile's order of
    severity is fail, then warn, then pass; bounds are inclusive.
    """
    by_name = {metric.name: metric for metric in metrics}
    return tuple(_judge_one(rule, by_name.get(rule.metric)) for rule in spec.rules(modality, expected_key))


def _judge_one(rule: ThresholdRule, metric: Metric | None) -> MetricVerdict:
    definition = METRICS[rule.metric]
    value = metric.value if metric is not None else None
    outcome: Outcome
    if metric is None:
        outcome, detail = "not_evaluable", "This metric was not measured for the series."
    elif value is None or not math.isfinite(value):
        outcome, detail = "not_evaluable", f"Not computable: {metric.reason or 'no reason was recorded'}."
    elif rule.fail is not None and not rule.fail.contains(value):
        outcome, detail = (
            "fail",
            f"{_quantity(value, definition.unit)} is outside the fail band ({rule.fail}).",
        )
    elif rule.warn is not None and not rule.warn.contains(value):
        outcome, detail = (
            "warn",
            f"{_quantity(value, definition.unit)} is outside the warn band ({rule.warn}).",
        )
    else:
        outcome, detail = (
            "pass",
            "Within the bounds." if rule.warn or rule.fail else "Measured; no bounds are set.",
        )
    slices = metric.slices if metric is not None else ()
    return MetricVerdict(
        rule.metric,
        definition.label,
        value,
        definition.unit,
        outcome,
        rule.warn,
        rule.fail,
        rule.required,
        detail,
        slices,
    )


def _quantity(value: float, unit: str) -> str:
    return f"{value:.4g}" if unit == "1" else f"{value:.4g} {unit}"


def overall(verdicts: Iterable[MetricVerdict]) -> Outcome:
    """Return the outcome of a series: fail, else not_evaluable (a required metric lacks a value), else warn or pass.

    An optional metric without a value does not count. Nothing judged is not_evaluable.
    """
    counted = [verdict for verdict in verdicts if verdict.required or verdict.outcome != "not_evaluable"]
    for outcome in ("fail", "not_evaluable", "warn"):
        if any(verdict.outcome == outcome for verdict in counted):
            return outcome
    return "pass" if counted else "not_evaluable"
