"""Judging a visit: which expected series it has, lacks, or has too often."""

from __future__ import annotations

from collections.abc import Mapping

from qc_app.protocol.model import COMPLIANT, DEVIANT, NOT_EVALUABLE, ExpectedSeries, ProtocolSpec, Verdict


def evaluate_visit(spec: ProtocolSpec, visit_code: str, received: Mapping[str, int]) -> tuple[Verdict, ...]:
    """Return one verdict per expected series: as many as wanted, missing, or too many.

    `received` maps the key of an expected series to how many matching series the visit has. A series received
    at a visit that does not expect it is deviant; a key the protocol does not know is not evaluable.
    """
    verdicts = [_judge_count(series, visit_code, received.get(series.key, 0)) for series in spec.series]
    unknown = [_unknown_series(key) for key in received if spec.get(key) is None]
    return (*(verdict for verdict in verdicts if verdict is not None), *unknown)


def _judge_count(series: ExpectedSeries, visit_code: str, number: int) -> Verdict | None:
    if not series.expected_at(visit_code):
        return _unexpected_series(series, visit_code, number) if number else None
    return _series_count(series, visit_code, number)


def _series_count(series: ExpectedSeries, visit_code: str, number: int) -> Verdict:
    """Judge how many series of one kind a visit has; an optional series may be left out."""
    low, high = series.count.minimum, series.count.maximum
    wanted = _wanted_text(series)
    have = f"Visit {visit_code} has {number} series “{series.title}”; the protocol wants {wanted}."
    if number == 0 and not series.required:
        return _visit_verdict(series, number, COMPLIANT, have, "")
    if number < low:
        action = f"Acquire and send the series “{series.title}”, or record why it cannot be had."
        return _visit_verdict(series, number, DEVIANT, have, action)
    if high is not None and number > high:
        action = "Say which series is the one to use and have the others rejected, or ask for a waiver."
        return _visit_verdict(series, number, DEVIANT, have, action)
    return _visit_verdict(series, number, COMPLIANT, have, "")


def _unexpected_series(series: ExpectedSeries, visit_code: str, number: int) -> Verdict:
    detail = (
        f"Visit {visit_code} has {number} series “{series.title}”, which the protocol expects only at "
        f"{', '.join(series.visits or ())}."
    )
    action = "Check that the series was sent for the right visit; move or reject it if not."
    return _visit_verdict(series, number, DEVIANT, detail, action)


def _unknown_series(key: str) -> Verdict:
    return Verdict(
        rule=f"visit.{key}",
        parameter="SeriesCount",
        label="Number of series",
        expected={"kind": "series_count", "text": "a series that the protocol expects"},
        observed=key,
        unit="",
        source="counted",
        outcome=NOT_EVALUABLE,
        severity="major",
        detail=f"The protocol expects no series with the key {key!r}.",
        action="Match the visit's series again with this protocol version.",
    )


def _wanted_text(series: ExpectedSeries) -> str:
    low, high = series.count.minimum, series.count.maximum
    if high is None:
        text = f"at least {low}"
    else:
        text = str(low) if low == high else f"{low} to {high}"
    return text if series.required else f"none or {text}"


def _visit_verdict(series: ExpectedSeries, number: int, outcome: str, detail: str, action: str) -> Verdict:
    return Verdict(
        rule=f"visit.{series.key}",
        parameter="SeriesCount",
        label="Number of series",
        expected={
            "kind": "series_count",
            "min": series.count.minimum,
            "max": series.count.maximum,
            "required": series.required,
            "text": _wanted_text(series),
        },
        observed=number,
        unit="",
        source="counted",
        outcome=outcome,
        severity=series.count.severity,
        detail=detail,
        action=action,
    )
