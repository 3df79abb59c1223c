"""Background work of this app: one task per series, one per visit."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.models import Job, JobState
from hub.core.jobs.registry import job
from hub.core.jobs.services import enqueue
from qc_app.services import check, drift
from sites_app.models import Series, SubmissionState, Visit

CHECK_SERIES = "qc.check_series"
CHECK_VISIT = "qc.check_visit"
_SWEPT_AT_ONCE = 500


def _series_failed(arguments: dict[str, Any], reason: str) -> None:
    check.fail_series(series_id=UUID(arguments["series_id"]), reason=reason)


@job(name=CHECK_SERIES, queue="check", soft_limit_s=300, hard_limit_s=330, on_failure=_series_failed)
def check_series(context: JobContext, *, series_id: str) -> None:
    """Judge one received series, then look whether its scanner drifts."""
    check.check_series(series_id=UUID(series_id))
    drift.assess_series(series_id=UUID(series_id))


@job(name=CHECK_VISIT, queue="check", soft_limit_s=120, hard_limit_s=150)
def check_visit(context: JobContext, *, visit_id: str) -> None:
    """Judge one visit as a whole."""
    check.check_visit(visit_id=UUID(visit_id))


def enqueue_series_check(series: Series) -> None:
    enqueue(
        CHECK_SERIES,
        key=str(series.pk),
        arguments={"series_id": str(series.pk)},
        scope=series.trial_id,
        subscope=series.site_id,
    )


def enqueue_visit_check(visit: Visit) -> None:
    enqueue(
        CHECK_VISIT,
        key=str(visit.pk),
        arguments={"visit_id": str(visit.pk)},
        scope=visit.trial_id,
        subscope=visit.site_id,
    )


def sweep_unchecked_series() -> int:
    """Enqueue the check of every series that waits for it, belongs to a final submission and has no job."""
    under_way = Job.objects.filter(kind=CHECK_SERIES, state__in=[JobState.QUEUED, JobState.RUNNING])
    busy = set(under_way.values_list("key", flat=True))
    waiting = check.unchecked_series().exclude(
        submission__state__in=[SubmissionState.OPEN, SubmissionState.RECEIVED, SubmissionState.PROCESSING]
    )
    lost = [
        row
        for row in waiting.order_by("received_at")[: _SWEPT_AT_ONCE + len(busy)]
        if str(row.pk) not in busy
    ]
    for series in lost[:_SWEPT_AT_ONCE]:
        enqueue_series_check(series)
    return len(lost[:_SWEPT_AT_ONCE])
