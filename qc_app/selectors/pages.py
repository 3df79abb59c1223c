"""What the pages of series, deviations and queries show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet

from qc_app.models import Deviation, DeviationState, Query, QueryMessage, SeriesCheck
from qc_app.protocol.values import format_value
from qc_app.selectors.bands import BandPicture, band_picture
from qc_app.services.query import setting_text
from sites_app.models import Instance, Series, SeriesSegment, SeriesState, Submission, Trial
from sites_app.selectors.series import parameters_of, received_series
from sites_app.selectors.submission import series_of

OPEN_DEVIATIONS = (DeviationState.OPEN, DeviationState.ACKNOWLEDGED)
_MOST_VALUES = 3


@dataclass(frozen=True)
class RuleRow:
    """One verdict for people: what the protocol wants, what was found, and what to do about it."""

    rule: str
    label: str
    expected: str
    observed: str
    source: str
    outcome: str
    severity: str
    detail: str
    action: str

    @property
    def is_off(self) -> bool:
        return self.outcome != "compliant"


@dataclass(frozen=True)
class ParameterRow:
    """One acquisition parameter that no rule judges."""

    keyword: str
    value: str
    source: str
    remark: str


@dataclass(frozen=True)
class MetricRow:
    label: str
    value: float | None
    unit: str
    outcome: str
    reason: str
    picture: BandPicture | None


@dataclass(frozen=True)
class DeidentificationRow:
    """What the de-identifier did to which attributes of a series."""

    action: str
    meaning: str
    tags: tuple[str, ...]


_MEANINGS = {
    "REMOVE": "removed",
    "EMPTY": "emptied",
    "DUMMY": "replaced by a dummy value",
    "CLEAN": "cleaned of words that may identify",
    "MAP_UID": "replaced by a keyed UID",
    "SHIFT_DATE": "moved by the subject's date offset",
    "SUBJECT": "replaced by the subject code",
    "KEEP": "kept",
}


def listed_series(user: Any, trial: Trial, *, protocol: str = "", quality: str = "") -> QuerySet[Series]:
    """Return the received series with their judgement in force, kept to the outcomes where these are named."""
    rows = received_series(user).filter(trial=trial).prefetch_related(_current_checks())
    judged = SeriesCheck.objects.filter(series=OuterRef("pk"), is_current=True)
    if protocol:
        rows = rows.filter(Exists(judged.filter(protocol_outcome=protocol)))
    if quality:
        rows = rows.filter(Exists(judged.filter(qc_outcome=quality)))
    return rows.annotate(  # type: ignore[no-any-return]
        open_deviations=Count("deviations", filter=Q(deviations__state__in=OPEN_DEVIATIONS))
    ).order_by("-received_at", "-pk")


def series_of_submission(submission: Submission) -> list[Series]:
    """Return the series of a submission with their judgements and open deviations, as they are now."""
    rows = series_of(submission).filter(instance_count__gt=0).prefetch_related(_current_checks())
    return list(rows.prefetch_related(_open_deviations()))


def is_judged(rows: Sequence[Series]) -> bool:
    return all(row.state in (SeriesState.CHECKED, SeriesState.FAILED) for row in rows)


def visit_deviations(submission: Submission) -> list[Deviation]:
    """Return the open deviations of the visit as a whole: series missing, too many, date out of its window."""
    rows = Deviation.objects.filter(visit_id=submission.visit_id, series=None, state__in=OPEN_DEVIATIONS)
    return list(rows.order_by("opened_at"))


def rule_rows(verdicts: Sequence[Mapping[str, Any]]) -> list[RuleRow]:
    """Return the verdicts of a check, those that are not compliant first, each group in the protocol's order."""
    rows = [
        RuleRow(
            item["rule"],
            item["label"],
            item["expected"].get("text", ""),
            observed_text(item["observed"], item["unit"]),
            item["source"],
            item["outcome"],
            item["severity"],
            item["detail"],
            item["action"],
        )
        for item in verdicts
    ]
    return sorted(rows, key=lambda row: not row.is_off)


def observed_text(observed: Any, unit: str) -> str:
    """Write an observed value: one value, or all with their counts where they differ inside the series."""
    if not isinstance(observed, dict):
        return format_value(observed, unit)
    return _values_text(observed.get("values", ()), unit) or "unreadable"


def parameter_rows(series: Series, verdicts: Sequence[Mapping[str, Any]]) -> list[ParameterRow]:
    """Return what was read of a series beyond the parameters that a rule judges."""
    judged = {item["parameter"] for item in verdicts}
    return [
        ParameterRow(
            item["keyword"], _values_text(item["values"], item["unit"]), item["source"], _remark(item)
        )
        for item in parameters_of(series)
        if item["keyword"] not in judged
    ]


def metric_rows(metrics: Sequence[Mapping[str, Any]]) -> list[MetricRow]:
    """Return the metrics in the registry's order."""
    return [
        MetricRow(
            item["label"],
            item["value"],
            "" if item["unit"] == "1" else item["unit"],
            item["outcome"],
            item["reason"],
            band_picture(item["value"], item["threshold"]),
        )
        for item in metrics
    ]


def deidentification_rows(series: Series) -> list[DeidentificationRow]:
    """Return what was done to the attributes of a series, over all its uploads."""
    found: dict[str, set[str]] = {}
    for report in SeriesSegment.objects.filter(series=series).values_list("deid_report", flat=True):
        for action, tags in report.items():
            found.setdefault(action, set()).update(tags)
    return [
        DeidentificationRow(
            action, _MEANINGS.get(action, action.replace("_", " ").lower()), tuple(sorted(tags))
        )
        for action, tags in sorted(found.items())
    ]


def instances_of(series: Series) -> QuerySet[Instance]:
    return Instance.objects.filter(series=series).order_by("instance_number", "sop_instance_uid")


def former_checks(series: Series) -> list[SeriesCheck]:
    rows = SeriesCheck.objects.filter(series=series, is_current=False)
    return list(rows.select_related("protocol", "qc_profile"))


def deviations_of(series: Series) -> list[Deviation]:
    return list(Deviation.objects.filter(series=series).order_by("closed_at", "opened_at"))


def queries_of(series: Series) -> list[Query]:
    return list(Query.objects.filter(series=series))


def listed_deviations(user: Any, trial: Trial) -> QuerySet[Deviation]:
    rows = Deviation.objects.visible_to(user).filter(trial=trial)
    rows = rows.select_related("site", "subject", "visit__definition", "series")
    return rows.order_by("-opened_at", "-pk")  # type: ignore[no-any-return]


def listed_queries(user: Any, trial: Trial) -> QuerySet[Query]:
    rows = Query.objects.visible_to(user).filter(trial=trial)
    rows = rows.select_related("site", "subject", "visit__definition", "series", "deviation", "raised_by")
    return rows.annotate(answers=Count("messages")).order_by("-created_at", "-pk")  # type: ignore[no-any-return]


def thread_of(query: Query) -> list[QueryMessage]:
    return list(query.messages.select_related("author"))


def values_to_set(series: Series | None) -> list[str]:
    """Return what to set on the scanner for a new acquisition: one line per open deviation of the series."""
    if series is None:
        return []
    rows = Deviation.objects.filter(series=series, state__in=OPEN_DEVIATIONS).order_by("opened_at", "rule")
    return [setting_text(row) for row in rows]


def _current_checks() -> Prefetch:
    rows = SeriesCheck.objects.filter(is_current=True).select_related("protocol", "replaced_by")
    return Prefetch("checks", queryset=rows, to_attr="current_checks")


def _open_deviations() -> Prefetch:
    rows = Deviation.objects.filter(state__in=OPEN_DEVIATIONS).order_by("opened_at", "rule")
    return Prefetch("deviations", queryset=rows, to_attr="deviations_open")


def _values_text(values: Sequence[Mapping[str, Any]], unit: str) -> str:
    if len(values) == 1:
        return format_value(values[0]["value"], unit)
    shown = [f"{format_value(item['value'], unit)} ({item['count']})" for item in values[:_MOST_VALUES]]
    more = len(values) - _MOST_VALUES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _remark(item: Mapping[str, Any]) -> str:
    parts = [f"missing in {item['missing']}" if item["missing"] else ""]
    parts.append(f"unreadable in {item['unparsable']}" if item["unparsable"] else "")
    return ", ".join(part for part in parts if part)
