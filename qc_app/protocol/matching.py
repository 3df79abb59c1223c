"""Which expected series a received series is, by the protocol's explicit conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qc_app.protocol.judging import CannotJudge, expected_text, satisfies
from qc_app.protocol.model import AnyOf, Condition, ExpectedSeries, ProtocolSpec
from qc_app.protocol.values import format_value
from sites_app.dicom.observations import SeriesObservation

MATCHED = "matched"
NO_MODALITY = "modality_not_expected"
NO_MATCH = "no_match"
SEVERAL = "several_matches"
WRONG_VISIT = "not_expected_at_visit"


@dataclass(frozen=True, slots=True)
class SeriesMatch:
    """The expected series a received one is, or a named reason why that cannot be said.

    `reason_code` is matched, modality_not_expected, no_match, several_matches or not_expected_at_visit;
    `candidates` names the keys that matched or, where none did, came nearest.
    """

    expected_key: str | None
    reason_code: str
    reason: str
    candidates: tuple[str, ...] = ()


def match_series(spec: ProtocolSpec, observation: SeriesObservation, visit_code: str) -> SeriesMatch:
    """Return the one expected series of the visit whose modality and conditions all agree."""
    candidates = [series for series in spec.series if series.modality == observation.modality]
    if not candidates:
        expected = ", ".join(sorted({series.modality for series in spec.series}))
        reason = (
            f"The series has the modality {observation.modality or 'none'}; the protocol expects {expected}."
        )
        return SeriesMatch(None, NO_MODALITY, reason)
    failures = {series.key: failed_conditions(series, observation) for series in candidates}
    matching = [series for series in candidates if not failures[series.key]]
    at_visit = [series for series in matching if series.expected_at(visit_code)]
    if len(at_visit) == 1:
        series = at_visit[0]
        return SeriesMatch(series.key, MATCHED, f"All conditions of “{series.title}” hold.", (series.key,))
    if at_visit:
        return _several(at_visit)
    if matching:
        return _wrong_visit(matching, visit_code)
    return _nearest(candidates, failures)


def failed_conditions(series: ExpectedSeries, observation: SeriesObservation) -> list[str]:
    """Return the sentences on every matching condition of the series that does not hold."""
    failed = []
    for entry in series.match:
        reason = _any_of(entry, observation) if isinstance(entry, AnyOf) else _condition(entry, observation)
        if reason:
            failed.append(reason)
    return failed


def _any_of(entry: AnyOf, observation: SeriesObservation) -> str:
    reasons = []
    for alternative in entry.alternatives:
        failed = [reason for reason in (_condition(item, observation) for item in alternative) if reason]
        if not failed:
            return ""
        reasons.append(" and ".join(failed))
    return "none of the alternatives holds (" + "; ".join(reasons) + ")"


def _condition(condition: Condition, observation: SeriesObservation) -> str:
    """Return "" where every recorded value satisfies the condition and there is one, else the reason."""
    test = condition.test
    found = observation.parameters.get(test.parameter)
    if found is None or not found.values:
        unreadable = found is not None and found.unparsable
        return f"{test.label} {'cannot be read' if unreadable else 'is not recorded'}"
    if found.unit != test.unit:
        return f"{test.label} was read in “{found.unit}”, not in “{test.unit}”"
    wanted = f"{'not ' if condition.negate else ''}{expected_text(test)}"
    for item in found.values:
        try:
            holds = satisfies(test, item.value) is not condition.negate
        except CannotJudge as reason:
            return f"{test.label} {reason}"
        if not holds:
            return f"{test.label} is {format_value(item.value, test.unit)}, wanted {wanted}"
    return ""


def _several(matching: Sequence[ExpectedSeries]) -> SeriesMatch:
    titles = ", ".join(f"“{series.title}” ({series.key})" for series in matching)
    reason = (
        f"The series agrees with {len(matching)} expected series: {titles}. Assign it to one of them by hand."
    )
    return SeriesMatch(None, SEVERAL, reason, tuple(series.key for series in matching))


def _wrong_visit(matching: Sequence[ExpectedSeries], visit_code: str) -> SeriesMatch:
    series = matching[0]
    reason = (
        f"The series is “{series.title}” ({series.key}), which is expected at "
        f"{', '.join(series.visits or ())} and not at {visit_code}. Check that it was sent for the right "
        "visit."
    )
    return SeriesMatch(None, WRONG_VISIT, reason, tuple(item.key for item in matching))


def _nearest(candidates: Sequence[ExpectedSeries], failures: dict[str, list[str]]) -> SeriesMatch:
    fewest = min(len(failures[series.key]) for series in candidates)
    nearest = [series for series in candidates if len(failures[series.key]) == fewest]
    texts = [f"“{series.title}” ({series.key}): {'; '.join(failures[series.key])}" for series in nearest]
    reason = "The series agrees with no expected series. Nearest: " + ". ".join(texts) + "."
    return SeriesMatch(None, NO_MATCH, reason, tuple(series.key for series in nearest))
