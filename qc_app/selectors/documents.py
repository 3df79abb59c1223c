"""Protocols and QC profiles in words: what a person reads before signing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qc_app.metrics.profile import Band, QCProfileSpec, ThresholdRule
from qc_app.metrics.registry import METRICS
from qc_app.models import Protocol, QCProfile
from qc_app.protocol.changes import applies_to_text
from qc_app.protocol.judging import expected_text
from qc_app.protocol.model import AnyOf, Completeness, Condition, ExpectedSeries, SeriesCount
from qc_app.services import versions
from qc_app.services.judgement import profile_spec, protocol_spec
from qc_app.services.qc_profile import QC_PROFILE


@dataclass(frozen=True)
class RuleLine:
    """A rule as a table row."""

    id: str
    parameter: str
    tag: str
    expected: str
    applies_to: str
    severity: str
    remarks: str


@dataclass(frozen=True)
class SeriesSection:
    """An expected series as people read it."""

    key: str
    title: str
    modality: str
    required: bool
    visits: str
    count: str
    match: tuple[str, ...]
    rules: tuple[RuleLine, ...]
    completeness: tuple[str, ...]
    completeness_severity: str
    exemptions: tuple[tuple[str, str, str], ...]


def read_protocol(row: Protocol) -> tuple[SeriesSection, ...]:
    """Return the expected series of a version, in its order."""
    return tuple(_section(series) for series in protocol_spec(row).series)


def _section(series: ExpectedSeries) -> SeriesSection:
    exemptions = tuple(
        (item.parameter, applies_to_text(item.applies_to), item.reason) for item in series.exemptions
    )
    return SeriesSection(
        series.key,
        series.title,
        series.modality,
        series.required,
        ", ".join(series.visits) if series.visits is not None else "every visit",
        _count_text(series.count),
        tuple(_condition_text(entry) for entry in series.match),
        tuple(_rules(series)),
        tuple(_completeness(series.completeness)),
        series.completeness.severity,
        exemptions,
    )


def _rules(series: ExpectedSeries) -> Iterator[RuleLine]:
    for rule in series.rules:
        remarks = [
            "may be missing" if rule.allow_missing else "",
            "may vary inside the series" if rule.allow_varying else "",
            rule.note,
        ]
        yield RuleLine(
            rule.id,
            rule.test.label,
            rule.test.tag,
            expected_text(rule.test),
            applies_to_text(rule.applies_to),
            rule.severity,
            "; ".join(filter(None, remarks)),
        )


def _count_text(count: SeriesCount) -> str:
    if count.maximum is None:
        return f"at least {count.minimum}"
    if count.minimum == count.maximum:
        return f"exactly {count.minimum}"
    return f"{count.minimum} to {count.maximum}"


def _condition_text(entry: Condition | AnyOf) -> str:
    if isinstance(entry, Condition):
        return f"{entry.test.label} is {'not ' if entry.negate else ''}{expected_text(entry.test)}"
    return " or ".join(" and ".join(_condition_text(part) for part in parts) for parts in entry.alternatives)


def _completeness(rule: Completeness) -> Iterator[str]:
    demands = {
        "slice positions must be readable": rule.require_geometry,
        "no gaps between slices": not rule.allow_gaps,
        "regular slice spacing": not rule.allow_irregular_spacing,
        "no repeated slice positions": not rule.allow_duplicate_positions,
        "one orientation": not rule.allow_several_orientations,
    }
    return (text for text, demanded in demands.items() if demanded)


@dataclass(frozen=True)
class ThresholdLine:
    """A rule of a QC profile as a table row; "" where a band is not set."""

    metric: str
    label: str
    unit: str
    warn: str
    fail: str
    required: bool
    note: str
    formula: str


@dataclass(frozen=True)
class ThresholdSection:
    """The rules of a modality, or of one expected series."""

    title: str
    scope: str
    lines: tuple[ThresholdLine, ...]


def read_profile(row: QCProfile) -> tuple[ThresholdSection, ...]:
    """Return the rules of a version by modality, then by expected series."""
    spec = profile_spec(row)
    return tuple(
        ThresholdSection(title, scope, tuple(_threshold(rule) for rule in rules))
        for title, scope, rules in _scopes(spec)
    )


def _scopes(spec: QCProfileSpec) -> Iterator[tuple[str, str, tuple[ThresholdRule, ...]]]:
    for modality, rules in spec.modalities.items():
        yield f"Every {modality} series", modality, rules
    for key, rules in spec.series.items():
        yield f"Expected series {key}", key, rules


def _threshold(rule: ThresholdRule) -> ThresholdLine:
    metric = METRICS[rule.metric]
    unit = "" if metric.unit == "1" else metric.unit
    return ThresholdLine(
        rule.metric,
        metric.label,
        unit,
        _band(rule.warn),
        _band(rule.fail),
        rule.required,
        rule.note,
        metric.formula,
    )


def _band(band: Band | None) -> str:
    return str(band) if band is not None else ""


def profile_changes(row: QCProfile) -> list[str]:
    """Return one sentence for each difference of a version from the QC profile in force."""
    former = versions.in_force(QC_PROFILE, row.trial_id)
    if former is None or former.pk == row.pk:
        return []
    before, after = profile_spec(former), profile_spec(row)
    changes = [
        f"The {field} changes from “{old}” to “{new}”."
        for field, old, new in (
            ("name", before.name, after.name),
            ("description", before.description, after.description),
        )
        if old != new
    ]
    return changes + _rule_changes(_by_metric(before), _by_metric(after))


_Rules = dict[tuple[str, str], ThresholdRule]


def _by_metric(spec: QCProfileSpec) -> _Rules:
    return {(scope, rule.metric): rule for _, scope, rules in _scopes(spec) for rule in rules}


def _rule_changes(before: _Rules, after: _Rules) -> list[str]:
    changes = []
    for key, rule in after.items():
        what = f"{key[0]}: {METRICS[key[1]].label}"
        if key not in before:
            changes.append(f"{what} is new: {_rule_text(rule)}.")
        elif before[key] != rule:
            changes.append(f"{what} changes from {_rule_text(before[key])} to {_rule_text(rule)}.")
    return changes + [
        f"{scope}: {METRICS[name].label} is gone: {_rule_text(before[scope, name])}."
        for scope, name in before
        if (scope, name) not in after
    ]


def _rule_text(rule: ThresholdRule) -> str:
    parts: list[Any] = [
        "required" if rule.required else "optional",
        f"warn outside {rule.warn}" if rule.warn else "",
        f"fail outside {rule.fail}" if rule.fail else "",
        f"note “{rule.note}”" if rule.note else "",
    ]
    return ", ".join(filter(None, parts))
