"""Judging a received series and a visit against a protocol version.

Three outcomes: compliant, deviant, not evaluable. What is missing, unreadable, undecidable or varying inside
a series is never compliant unless the rule itself says that it may be.
"""

from __future__ import annotations

from qc_app.protocol import wording
from qc_app.protocol.applicability import Undecidable, applies
from qc_app.protocol.completeness import judge_completeness
from qc_app.protocol.judging import CannotJudge, satisfies
from qc_app.protocol.model import (
    COMPLIANT,
    COUNTABLE,
    DEVIANT,
    NOT_EVALUABLE,
    SEVERITIES,
    ExpectedSeries,
    ProtocolSpec,
    Rule,
    Verdict,
)
from qc_app.protocol.values import same
from qc_app.protocol.visits import evaluate_visit
from sites_app.dicom.observations import ObservedValue, ParameterObservation, SeriesObservation


def evaluate_series(
    spec: ProtocolSpec, expected_key: str, observation: SeriesObservation
) -> tuple[Verdict, ...]:
    """Return one verdict per applicable rule, then those on completeness.

    Raises KeyError where the protocol expects no series of that key.
    """
    series = spec.get(expected_key)
    if series is None:
        raise KeyError(f"The protocol {spec.name} expects no series {expected_key!r}.")
    verdicts: list[Verdict] = []
    for parameter in dict.fromkeys(rule.test.parameter for rule in series.rules):
        verdicts.extend(_judge_parameter(series, parameter, observation))
    return (*verdicts, *judge_completeness(series.completeness, observation))


def _judge_parameter(series: ExpectedSeries, parameter: str, observation: SeriesObservation) -> list[Verdict]:
    rules = [rule for rule in series.rules if rule.test.parameter == parameter]
    verdicts: list[Verdict] = []
    for rule in rules:
        try:
            if applies(rule.applies_to, observation):
                verdicts.append(_judge_rule(rule, observation))
        except Undecidable as reason:
            verdicts.append(_undecidable(rule, observation, str(reason)))
    if verdicts:
        return verdicts
    return _no_rule_applies(series, rules, observation)


def _undecidable(rule: Rule, observation: SeriesObservation, reason: str) -> Verdict:
    found = observation.parameters.get(rule.test.parameter)
    return wording.verdict(
        rule,
        found,
        NOT_EVALUABLE,
        f"It cannot be decided whether this rule is for the scanner: {reason}.",
        "Send the series with the scanner's manufacturer, model, software and field strength in its header.",
    )


def _no_rule_applies(
    series: ExpectedSeries, rules: list[Rule], observation: SeriesObservation
) -> list[Verdict]:
    """Report a parameter that has rules, none of them for this scanner, unless the protocol exempts it."""
    parameter = rules[0].test.parameter
    for exemption in series.exemptions:
        try:
            if exemption.parameter == parameter and applies(exemption.applies_to, observation):
                return []
        except Undecidable as reason:
            return [_undecidable(rules[0], observation, str(reason))]
    severest = max((rule.severity for rule in rules), key=SEVERITIES.index)
    return [wording.no_rule_applies(rules[0].test, severest, observation)]


def _judge_rule(rule: Rule, observation: SeriesObservation) -> Verdict:
    if rule.test.kind == "count":
        return _judge_counted(rule, observation)
    found = observation.parameters.get(rule.test.parameter)
    if observation.instances < 1:
        return wording.verdict(rule, found, NOT_EVALUABLE, "The series has no instances.", wording.SEND_AGAIN)
    if found is not None and found.values and found.unit != rule.test.unit:
        return wording.wrong_unit(rule, found)
    if rule.test.kind == "absent":
        return _judge_absent(rule, found)
    if found is None or not (found.values or found.unparsable):
        return _judge_missing(rule, found)
    return _judge_values(rule, found)


def _judge_absent(rule: Rule, found: ParameterObservation | None) -> Verdict:
    if found is None or not (found.values or found.unparsable):
        return wording.verdict(rule, found, COMPLIANT, f"{rule.test.label} is not recorded, as wanted.")
    return wording.not_absent(rule, found)


def _judge_missing(rule: Rule, found: ParameterObservation | None) -> Verdict:
    if rule.allow_missing:
        detail = f"{rule.test.label} is not recorded; the protocol accepts that."
        return wording.verdict(rule, found, COMPLIANT, detail)
    outcome = DEVIANT if rule.test.kind == "present" else NOT_EVALUABLE
    return wording.missing(rule, found, outcome)


def _judge_values(rule: Rule, found: ParameterObservation) -> Verdict:
    deviating: list[ObservedValue] = []
    unjudged: list[tuple[ObservedValue, str]] = []
    for value in found.values:
        try:
            if not satisfies(rule.test, value.value):
                deviating.append(value)
        except CannotJudge as reason:
            unjudged.append((value, str(reason)))
    if deviating:
        return wording.deviating(rule, found, deviating)
    if unjudged:
        return wording.unjudged(rule, found, unjudged)
    if found.unparsable:
        return wording.unparsable(rule, found)
    if found.missing and not rule.allow_missing:
        outcome = DEVIANT if rule.test.kind == "present" else NOT_EVALUABLE
        return wording.partly_missing(rule, found, outcome)
    if _varies(rule, found) and not rule.allow_varying and rule.test.kind != "present":
        return wording.varying(rule, found)
    return wording.compliant(rule, found)


def _varies(rule: Rule, found: ParameterObservation) -> bool:
    first = found.values[0].value
    return not all(same(rule.test.parameter, first, other.value) for other in found.values[1:])


def _judge_counted(rule: Rule, observation: SeriesObservation) -> Verdict:
    geometry = observation.geometry
    of = rule.test.arguments["of"]
    # A mosaic has no position per slice, but says how many slices it holds.
    derived = None if geometry.evaluable else observation.value(COUNTABLE[of])
    numbers = {
        "instances": observation.instances,
        "frames": observation.frames,
        "positions": geometry.positions if geometry.evaluable else derived,
        "volumes": geometry.volumes if geometry.evaluable else derived,
    }
    number = numbers[of]
    if not isinstance(number, int) or isinstance(number, bool):
        return wording.uncountable(rule, of, geometry.reason)
    ok = number > 0 and satisfies(rule.test, number)
    return wording.counted(rule, of, number, COMPLIANT if ok else DEVIANT)


__all__ = ["evaluate_series", "evaluate_visit"]
