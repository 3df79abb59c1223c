"""What an amendment changes, in words that a person signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qc_app.protocol.judging import expected_text
from qc_app.protocol.model import AnyOf, AppliesTo, Condition, Exemption, ExpectedSeries, ProtocolSpec, Rule
from qc_app.protocol.values import format_value


def diff(before: ProtocolSpec, after: ProtocolSpec) -> list[str]:
    """Return one sentence per difference, in the order of the new version; [] where nothing differs."""
    changes: list[str] = []
    for field in ("name", "title", "description", "sources"):
        changes += _changed(f"The {field}", before.document[field], after.document[field])
    for series in after.series:
        earlier = before.get(series.key)
        if earlier is None:
            changes.append(f"Series “{series.title}” ({series.key}) is new, with {len(series.rules)} rules.")
        else:
            changes += _series_changes(earlier, series)
    changes += [
        f"Series “{series.title}” ({series.key}) is no longer expected."
        for series in before.series
        if after.get(series.key) is None
    ]
    keys = [series.key for series in before.series if after.get(series.key)]
    if keys != [series.key for series in after.series if before.get(series.key)]:
        changes.append("The order of the series is different.")
    return changes


def _changed(what: str, before: Any, after: Any) -> list[str]:
    return [] if before == after else [f"{what} changes from {_show(before)} to {_show(after)}."]


def _show(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "nothing"
    if isinstance(value, str):
        return f"“{value}”"
    return format_value(tuple(value)) if isinstance(value, list | tuple) else format_value(value)


def _series_changes(before: ExpectedSeries, after: ExpectedSeries) -> list[str]:
    name = f"Series {after.key}"
    changes = _changed(f"{name}: the title", before.title, after.title)
    changes += _changed(f"{name}: the modality", before.modality, after.modality)
    changes += _changed(f"{name}: required", before.required, after.required)
    changes += _changed(f"{name}: the visits", before.visits or "all visits", after.visits or "all visits")
    for field in ("minimum", "maximum", "severity"):
        changes += _changed(
            f"{name}: the {field} of the number of series",
            getattr(before.count, field),
            getattr(after.count, field),
        )
    for field in after.completeness.__dataclass_fields__:
        words = field.replace("_", " ")
        changes += _changed(
            f"{name}: completeness, {words}",
            getattr(before.completeness, field),
            getattr(after.completeness, field),
        )
    changes += _listed(f"{name}: the matching condition", _match_texts(before), _match_texts(after))
    changes += _rule_changes(name, before, after)
    changes += _listed(
        f"{name}: the exemption",
        [_exemption_text(item) for item in before.exemptions],
        [_exemption_text(item) for item in after.exemptions],
    )
    return changes


def _listed(what: str, before: list[str], after: list[str]) -> list[str]:
    added = [f"{what} “{text}” is new." for text in after if text not in before]
    return added + [f"{what} “{text}” is gone." for text in before if text not in after]


def _match_texts(series: ExpectedSeries) -> list[str]:
    return [_entry_text(entry) for entry in series.match]


def _entry_text(entry: Condition | AnyOf) -> str:
    if isinstance(entry, Condition):
        return f"{entry.test.parameter} is {'not ' if entry.negate else ''}{expected_text(entry.test)}"
    return " or ".join(" and ".join(_entry_text(part) for part in parts) for parts in entry.alternatives)


def _rule_changes(name: str, before: ExpectedSeries, after: ExpectedSeries) -> list[str]:
    earlier: Mapping[str, Rule] = {rule.id: rule for rule in before.rules}
    changes = []
    for rule in after.rules:
        old = earlier.get(rule.id)
        if old is None:
            changes.append(f"{name}: rule {rule.id} is new: {rule_text(rule)}.")
        elif old != rule:
            changes.append(f"{name}: rule {rule.id} changes from {rule_text(old)} to {rule_text(rule)}.")
    kept = {rule.id for rule in after.rules}
    gone = [rule for rule in before.rules if rule.id not in kept]
    changes += [f"{name}: rule {rule.id} is gone: {rule_text(rule)}." for rule in gone]
    return changes


def rule_text(rule: Rule) -> str:
    """Return a whole rule in words: what, for which scanners, how severe, what it lets pass."""
    parts = [f"{rule.test.parameter} {expected_text(rule.test)} ({rule.test.kind})", rule.severity]
    if rule.applies_to.restricts():
        parts.append(f"for {applies_to_text(rule.applies_to)}")
    if rule.allow_missing:
        parts.append("may be missing")
    if rule.allow_varying:
        parts.append("may vary")
    if rule.note:
        parts.append(f"note “{rule.note}”")
    if rule.action:
        parts.append(f"action “{rule.action}”")
    return ", ".join(parts)


def applies_to_text(applies_to: AppliesTo) -> str:
    """Return the scanners in words."""
    parts = []
    if applies_to.manufacturers:
        parts.append(" or ".join(applies_to.manufacturers))
    if applies_to.models:
        parts.append("model " + " or ".join(applies_to.models))
    if applies_to.model_pattern:
        parts.append(f"model of the form {applies_to.model_pattern}")
    if applies_to.field_strength_t is not None:
        low, high = applies_to.field_strength_t
        least = f"from {format_value(low)} T" if low is not None else ""
        most = f"up to {format_value(high)} T" if high is not None else ""
        parts.append(" ".join(filter(None, (least, most))))
    if applies_to.software_pattern:
        parts.append(f"software of the form {applies_to.software_pattern}")
    return ", ".join(parts) or "all scanners"


def _exemption_text(exemption: Exemption) -> str:
    return f"{exemption.parameter} for {applies_to_text(exemption.applies_to)}: {exemption.reason}"
