"""Verdicts in words: what was found, what was wanted, and what a site coordinator does about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qc_app.protocol.judging import expected_text
from qc_app.protocol.model import (
    COMPLIANT,
    DEVIANT,
    NOT_EVALUABLE,
    Rule,
    Test,
    Verdict,
)
from qc_app.protocol.values import format_value
from sites_app.dicom.observations import ObservedValue, ParameterObservation, SeriesObservation

SEND_AGAIN = "Export the series again from the scanner, complete and unchanged, and send it."
MAX_VALUES_NAMED = 5


def verdict(
    rule: Rule,
    found: ParameterObservation | None,
    outcome: str,
    detail: str,
    action: str = "",
    instances: tuple[str, ...] = (),
) -> Verdict:
    """Return the verdict of one rule on one parameter."""
    test = rule.test
    return Verdict(
        rule=rule.id,
        parameter=test.parameter,
        label=test.label,
        expected=test.expected(expected_text(test)),
        observed=observed(found),
        unit=test.unit,
        source=found.source if found is not None and found.source else test.tag,
        outcome=outcome,
        severity=rule.severity,
        detail=detail,
        action=_action(rule, outcome, action),
        instances=instances,
    )


def _action(rule: Rule, outcome: str, action: str) -> str:
    return rule.action if rule.action and outcome != COMPLIANT else action


def observed(found: ParameterObservation | None) -> Any:
    """Return what was read as a JSON value: one value, None, or all values with their counts."""
    if found is None or not (found.values or found.unparsable):
        return None
    if len(found.values) == 1 and not (found.missing or found.unparsable):
        return _json(found.values[0].value)
    return {
        "values": [{"value": _json(item.value), "count": item.count} for item in found.values],
        "missing": found.missing,
        "unparsable": found.unparsable,
    }


def _json(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    # Canonical JSON holds no NaN or infinity.
    return str(value) if isinstance(value, float) and value - value != 0 else value


def compliant(rule: Rule, found: ParameterObservation) -> Verdict:
    text = _values_text(found.values, rule.test.unit)
    detail = f"{rule.test.label} is {text}; the protocol wants {expected_text(rule.test)}."
    return verdict(rule, found, COMPLIANT, detail)


def deviating(rule: Rule, found: ParameterObservation, values: Sequence[ObservedValue]) -> Verdict:
    test = rule.test
    where = _where(found, values)
    detail = (
        f"{test.label} is {_values_text(values, test.unit)}{where}; the protocol wants {expected_text(test)}."
    )
    return verdict(rule, found, DEVIANT, detail, _set_it(rule), _named(values) if where else ())


def varying(rule: Rule, found: ParameterObservation) -> Verdict:
    test = rule.test
    odd = found.values[1:]
    detail = (
        f"{test.label} varies inside the series: {_counts_text(found.values, test.unit)}. Each value alone "
        f"agrees with the protocol ({expected_text(test)}), but all images must have the same."
    )
    action = (
        "Check that the series was acquired in one run and exported without mixing; repeat it with one "
        "setting, or ask for a waiver."
    )
    return verdict(rule, found, DEVIANT, detail, action, _named(odd))


def missing(rule: Rule, found: ParameterObservation | None, outcome: str) -> Verdict:
    test = rule.test
    detail = (
        f"{test.label} {test.tag} is not recorded in the files; the protocol wants {expected_text(test)}."
    )
    return verdict(rule, found, outcome, detail, _record_it(test))


def partly_missing(rule: Rule, found: ParameterObservation, outcome: str) -> Verdict:
    test = rule.test
    total = found.missing + sum(item.count for item in found.values)
    detail = (
        f"{test.label} {test.tag} is not recorded in {found.missing} of {total} images; the others have "
        f"{_values_text(found.values, test.unit)}."
    )
    return verdict(rule, found, outcome, detail, _record_it(test))


def unparsable(rule: Rule, found: ParameterObservation) -> Verdict:
    test = rule.test
    detail = (
        f"{test.label} {test.tag} could not be read in {found.unparsable} images: it is not a valid value."
    )
    return verdict(rule, found, NOT_EVALUABLE, detail, SEND_AGAIN)


def unjudged(rule: Rule, found: ParameterObservation, values: Sequence[tuple[ObservedValue, str]]) -> Verdict:
    test = rule.test
    first, reason = values[0]
    detail = (
        f"{test.label} cannot be compared with {expected_text(test)}, because the recorded value "
        f"“{format_value(first.value)}” {reason}."
    )
    return verdict(rule, found, NOT_EVALUABLE, detail, SEND_AGAIN, _named([item for item, _ in values]))


def wrong_unit(rule: Rule, found: ParameterObservation) -> Verdict:
    detail = (
        f"{rule.test.label} was read in “{found.unit}” but the protocol's rule is in “{rule.test.unit}”; "
        "numbers in different units are not compared."
    )
    action = "Tell the trial's administrator: the rule and the parameter catalogue disagree."
    return verdict(rule, found, NOT_EVALUABLE, detail, action)


def not_absent(rule: Rule, found: ParameterObservation) -> Verdict:
    test = rule.test
    what = _values_text(found.values, test.unit) if found.values else "an unreadable value"
    detail = f"{test.label} is {what}; the protocol wants it not to be recorded."
    action = f"Repeat the series without {test.label}, or ask for a waiver."
    return verdict(rule, found, DEVIANT, detail, action, _named(found.values))


def no_rule_applies(test: Test, severity: str, observation: SeriesObservation) -> Verdict:
    """Report that a parameter has rules, but none for the scanner that made this series."""
    scanner = ", ".join(
        format_value(observation.value(keyword))
        if observation.value(keyword) is not None
        else f"no {keyword}"
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "MagneticFieldStrength")
        if keyword != "MagneticFieldStrength" or observation.modality == "MR"
    )
    found = observation.parameters.get(test.parameter)
    return Verdict(
        rule=f"{test.parameter}.no_applicable_rule",
        parameter=test.parameter,
        label=test.label,
        expected={"kind": "no_applicable_rule", "text": "a rule for this scanner"},
        observed=observed(found),
        unit=test.unit,
        source=found.source if found is not None and found.source else test.tag,
        outcome=NOT_EVALUABLE,
        severity=severity,
        detail=f"The protocol has rules for {test.label}, but none for this scanner ({scanner}).",
        action="Ask the trial's administrator to add a rule or an exemption for this scanner.",
    )


def counted(rule: Rule, of: str, number: int, outcome: str) -> Verdict:
    wanted = expected_text(rule.test)
    detail = f"The series has {number} {of}; the protocol wants {wanted}."
    low = rule.test.arguments.get("min")
    if outcome == COMPLIANT:
        action = ""
    elif low is not None and number < low:
        action = f"Send all {of} of the series. If the scan was cut short, repeat it or ask for a waiver."
    else:
        action = (
            "Check that only this one series was sent and with the planned coverage, or ask for a waiver."
        )
    return _count_verdict(rule, number, outcome, detail, action)


def uncountable(rule: Rule, of: str, reason: str) -> Verdict:
    detail = f"The {of} of the series cannot be counted: {reason.rstrip('.') or 'slice positions are not recorded'}."
    return _count_verdict(rule, None, NOT_EVALUABLE, detail, SEND_AGAIN)


def _count_verdict(rule: Rule, number: int | None, outcome: str, detail: str, action: str) -> Verdict:
    return Verdict(
        rule=rule.id,
        parameter=rule.test.parameter,
        label=rule.test.label,
        expected=rule.test.expected(expected_text(rule.test)),
        observed=number,
        unit="",
        source="counted",
        outcome=outcome,
        severity=rule.severity,
        detail=detail,
        action=_action(rule, outcome, action),
    )


def _set_it(rule: Rule) -> str:
    test = rule.test
    if test.kind in ("equals", "tolerance_absolute", "tolerance_relative", "vector"):
        return (
            f"Set {test.label} to {format_value(test.arguments['value'], test.unit)} and repeat the series, "
            "or ask for a waiver."
        )
    return f"Repeat the series so that {test.label} is {expected_text(test)}, or ask for a waiver."


def _record_it(test: Test) -> str:
    return (
        f"Export the series again with {test.label} {test.tag} in its header; if the scanner does not write "
        "it, tell the trial's administrator."
    )


def _where(found: ParameterObservation, values: Sequence[ObservedValue]) -> str:
    """Say in how many images (instances, or frames of one), where not in all of them alike."""
    total = sum(item.count for item in found.values) + found.missing + found.unparsable
    count = sum(item.count for item in values)
    return f" in {count} of {total} images" if count != total or len(found.values) > 1 else ""


def _values_text(values: Sequence[ObservedValue], unit: str) -> str:
    texts = [format_value(item.value) for item in values[:MAX_VALUES_NAMED]]
    more = len(values) - MAX_VALUES_NAMED
    text = ", ".join(texts) + (f" and {more} more values" if more > 0 else "")
    return f"{text} {unit}" if unit else text


def _counts_text(values: Sequence[ObservedValue], unit: str) -> str:
    texts = [f"{format_value(item.value, unit)} ({item.count} images)" for item in values[:MAX_VALUES_NAMED]]
    more = len(values) - MAX_VALUES_NAMED
    return ", ".join(texts) + (f" and {more} more values" if more > 0 else "")


def _named(values: Sequence[ObservedValue]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for item in values for uid in item.instances))
