"""Series as they arrive: their rows, and what all their instances together say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, Sum
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.events import publish
from sites_app.dicom.aggregate import aggregate
from sites_app.dicom.columns import facts_from_columns, facts_to_columns
from sites_app.dicom.observations import InstanceFacts, SeriesObservation
from sites_app.events import SeriesReceived
from sites_app.models import Instance, Series, SeriesSegment, Study, Submission, Visit
from sites_app.services.scanner import identify_scanner

_DATE = re.compile(r"(\d{4})\D?(\d{2})\D?(\d{2})")


def known_series(submission: Submission, facts: InstanceFacts) -> Series:
    """Return the row of the series an instance belongs to, made where it is new, in the caller's transaction."""
    scope = {
        "trial_id": submission.trial_id,
        "site_id": submission.site_id,
        "subject_id": submission.subject_id,
    }
    study, _ = Study.objects.get_or_create(
        visit_id=submission.visit_id,
        study_instance_uid=facts.study_instance_uid,
        defaults={
            **scope,
            "study_date": _date(facts.parameters.get("AcquisitionDate")),
            "description": str(facts.parameters.get("StudyDescription", ""))[:200],
        },
    )
    series, _ = Series.objects.get_or_create(
        study=study,
        series_instance_uid=facts.series_instance_uid,
        defaults={
            **scope,
            "visit_id": submission.visit_id,
            "submission": submission,
            "modality": facts.modality[:16],
            "received_at": timezone.now(),
        },
    )
    return series


def segment_columns(facts: Sequence[InstanceFacts]) -> dict[str, Any]:
    """Return the facts of a segment's instances in the form that is stored."""
    return facts_to_columns(facts)


def observe(series_id: UUID, submission: Submission) -> SeriesObservation:
    """Return what the segments of a series say that this submission and finished ones brought."""
    segments = SeriesSegment.objects.filter(_settled("", submission), series_id=series_id)
    return aggregate(item for segment in segments for item in facts_from_columns(segment.columns))


def receive_series(*, series_id: UUID, observation: SeriesObservation, submission: Submission) -> None:
    """Store what a series says and tell that it is received, in the transaction that finishes its submission.

    A series that was checked before is received anew.
    """
    series = (
        Series.objects.select_for_update(no_key=True, of=("self",)).select_related("study").get(pk=series_id)
    )
    before = {"state": series.state, "instances": series.instance_count}
    settled = Instance.objects.filter(_settled("segment__", submission), series=series)
    stored = settled.aggregate(size=Sum("size"), count=Count("id"))
    series.observation = observation.to_json()
    series.modality = observation.modality[:16]
    series.description = _text(observation, "SeriesDescription")[:200]
    series.acquired_on = _date(_first(observation, "AcquisitionDate"))
    series.instance_count, series.size = stored["count"], stored["size"] or 0
    series.state, series.reason, series.checked_at = Series.State.RECEIVED, "", None
    series.received_at = timezone.now()
    series.scanner, series.scanner_epoch = identify_scanner(series=series, observation=observation)
    series.save()
    _date_visit(series)
    record(
        actor=submission.created_by,
        action="series.received",
        obj=series,
        old=before,
        new={"state": series.state, "instances": series.instance_count, "submission": str(submission.pk)},
    )
    publish(SeriesReceived(series_id=series.pk))


def _settled(path: str, submission: Submission) -> Q:
    """Select what belongs to `submission` or to one that is over: an unfinished one may still be cancelled."""
    unfinished = [Submission.State.OPEN, Submission.State.RECEIVED, Submission.State.PROCESSING]
    return Q(**{f"{path}upload__submission": submission}) | ~Q(
        **{f"{path}upload__submission__state__in": unfinished}
    )


def _date_visit(series: Series) -> None:
    """The day of a visit is the earliest (shifted) day on which one of its series was acquired."""
    if series.acquired_on is None:
        return
    visit = Visit.objects.select_for_update(no_key=True).get(pk=series.visit_id)
    if visit.performed_on is None or series.acquired_on < visit.performed_on:
        visit.performed_on = series.acquired_on
        visit.save(update_fields=["performed_on"])
    if series.study.study_date is None or series.acquired_on < series.study.study_date:
        Study.objects.filter(pk=series.study_id).update(study_date=series.acquired_on)


def _first(observation: SeriesObservation, keyword: str) -> Any:
    found = observation.parameters.get(keyword)
    return found.values[0].value if found is not None and found.values else None


def _text(observation: SeriesObservation, keyword: str) -> str:
    value = _first(observation, keyword)
    return "" if value is None else str(value)


def _date(value: Any) -> date | None:
    match = _DATE.match(str(value or ""))
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None
