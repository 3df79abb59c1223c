"""Enqueue, run, cancel and recover jobs."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from celery import current_app
from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from hub.core.api.request_context import origin
from hub.core.database import connection_lost
from hub.core.errors import Conflict, HubError, StorageFull
from hub.core.jobs.heartbeat import Heartbeat, JobContext
from hub.core.jobs.models import Job, JobState
from hub.core.jobs.registry import kind_if_known, kind_named

log = structlog.get_logger(__name__)

# A heartbeat older than this means that the worker is dead; it beats every 3 s.
STALE_AFTER = timedelta(seconds=15)
# A queued job not begun after this is published again: the message may have been lost with Redis.
REPUBLISH_AFTER = timedelta(seconds=20)
_UNPUBLISHED_AFTER = timedelta(seconds=3)
# A full disk or a lost database is not the job's fault: such an attempt does not count, up to this many in all.
MOST_ATTEMPTS = 100
CANCELLED = "Cancelled on request."


class JobCancelled(Exception):
    """Raised inside a job, at its next progress report, when its cancellation was asked for."""


def enqueue(
    kind: str,
    *,
    key: str,
    arguments: dict[str, Any],
    scope: UUID | None = None,
    subscope: UUID | None = None,
    requested_by: Any = None,
) -> Job:
    """Add a job in the caller's transaction and publish it when that commits.

    An unfinished job of the same kind and key is returned instead of a second one.
    """
    definition = kind_named(kind)
    with transaction.atomic():
        existing = Job.objects.filter(
            kind=kind, key=key, state__in=[JobState.QUEUED, JobState.RUNNING]
        ).first()
        if existing is not None:
            return existing
        row = Job.objects.create(
            kind=kind,
            queue=definition.queue,
            key=key,
            arguments=arguments,
            scope=scope,
            subscope=subscope,
            requested_by=getattr(requested_by, "pk", None),
            max_attempts=definition.max_attempts,
        )
        transaction.on_commit(lambda: _publish(row))
    return row


def _publish(row: Job) -> None:
    """Send the job's id to its queue; where that fails the sweeper sends it again."""
    definition = kind_named(row.kind)
    try:
        current_app.send_task(
            "hub.run_job",
            args=[str(row.pk)],
            queue=definition.queue,
            soft_time_limit=definition.soft_limit_s,
            time_limit=definition.hard_limit_s,
            retry=False,
        )
    except (BrokerError, OSError) as error:
        log.warning("job.publish_failed", job=str(row.pk), error=type(error).__name__)
        return
    Job.objects.filter(pk=row.pk).update(published_at=timezone.now())


def run(job_id: str) -> None:
    """Run one job if it is still to be run; count the attempt in the database before work starts."""
    row = _claim(job_id)
    if row is None:
        return
    definition = kind_named(row.kind)
    context = JobContext(job_id=row.pk, attempt=row.attempts)
    structlog.contextvars.bind_contextvars(job=str(row.pk), kind=row.kind)
    try:
        with Heartbeat(row.pk, row.attempts), origin("job", job=str(row.pk), kind=row.kind):
            definition.function(context, **row.arguments)
    except JobCancelled:
        _end_cancelled(row)
    except SoftTimeLimitExceeded:
        _fail(row, f"Stopped after {definition.soft_limit_s} s, the time limit of this kind of job.")
    except Exception as error:
        _after_error(row, error)
    else:
        _finish(row, JobState.SUCCEEDED, "")
    finally:
        structlog.contextvars.clear_contextvars()


def _after_error(row: Job, error: Exception) -> None:
    if isinstance(error, (StorageFull, ConnectionError)) or connection_lost(error):
        log.warning("job.interrupted", error=type(error).__name__)
        _interrupt(row, error)
    elif isinstance(error, HubError):
        _fail(row, error.detail)
    else:
        log.exception("job.error", error=type(error).__name__)
        _retry_or_fail(
            row, f"Internal error ({type(error).__name__}). The log of job {row.pk} has the details."
        )


def _claim(job_id: str) -> Job | None:
    now = timezone.now()
    claimed = Job.objects.filter(pk=job_id, state=JobState.QUEUED, attempts__lt=F("max_attempts")).update(
        state=JobState.RUNNING,
        attempts=F("attempts") + 1,
        started_at=now,
        heartbeat_at=now,
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )
    return Job.objects.get(pk=job_id) if claimed else None


def _finish(row: Job, state: str, reason: str) -> bool:
    """End an attempt; False where it is no longer the current one: its worker was thought dead and came back."""
    changes: dict[str, Any] = {"state": state, "reason": reason[:2000], "finished_at": timezone.now()}
    if state == JobState.SUCCEEDED:
        changes["progress"] = 1.0
    current = Job.objects.filter(pk=row.pk, state=JobState.RUNNING, attempts=row.attempts)
    return bool(current.update(**changes))


def _fail(row: Job, reason: str) -> None:
    definition = kind_named(row.kind)
    with transaction.atomic():
        if _finish(row, JobState.FAILED, reason) and definition.on_failure is not None:
            definition.on_failure(row.arguments, reason)


def _end_cancelled(row: Job) -> None:
    with transaction.atomic():
        if _finish(row, JobState.CANCELLED, CANCELLED):
            _tell_cancelled(row)


def _tell_cancelled(row: Job) -> None:
    """Give what the job was for its final state too; a job left by another version of the hub has nothing to tell."""
    definition = kind_if_known(row.kind)
    if definition is not None and definition.on_cancel is not None:
        definition.on_cancel(row.arguments, CANCELLED)


def _retry_or_fail(row: Job, reason: str) -> None:
    if row.attempts >= row.max_attempts:
        _fail(row, f"Given up after {row.attempts} attempts. {reason}")
    else:
        _give_back(row, reason)


def _interrupt(row: Job, error: Exception) -> None:
    """Have a job tried again, at once after a lost connection and after a while where the disk is full."""
    if not isinstance(error, StorageFull):
        connection.close()
    if row.attempts >= MOST_ATTEMPTS:
        _fail(row, f"Given up after {row.attempts} attempts ({type(error).__name__}).")
    elif isinstance(error, StorageFull):
        _give_back(row, error.detail, max_attempts=F("max_attempts") + 1, published_at=timezone.now())
    else:
        _give_back(row, max_attempts=F("max_attempts") + 1)


def _give_back(row: Job, reason: str = "", **changes: Any) -> None:
    changes = {"state": JobState.QUEUED, "published_at": None, "reason": reason[:2000], **changes}
    try:
        Job.objects.filter(pk=row.pk, state=JobState.RUNNING, attempts=row.attempts).update(**changes)
    except (DatabaseError, InterfaceError):
        log.warning("job.give_back_failed")  # the stale heartbeat brings it back


def cancel(*, row: Job) -> None:
    """Cancel a queued job now, a running one at its next progress report. Raises Conflict when it is over."""
    with transaction.atomic():
        if Job.objects.filter(pk=row.pk, state=JobState.QUEUED).update(
            state=JobState.CANCELLED, finished_at=timezone.now(), reason=CANCELLED
        ):
            _tell_cancelled(row)
            return
    if not Job.objects.filter(pk=row.pk, state=JobState.RUNNING).update(cancel_requested=True):
        raise Conflict("This job is over already; there is nothing to cancel.")


def sweep() -> int:
    """Bring back what a crash, a flushed queue or a restarted database dropped; return how many jobs."""
    return _revive_stale() + _republish_unbegun()


def _revive_stale() -> int:
    count = 0
    stale = Job.objects.filter(state=JobState.RUNNING, heartbeat_at__lt=timezone.now() - STALE_AFTER)
    for row in stale[:500]:
        log.warning("job.worker_lost", job=str(row.pk), kind=row.kind, attempt=row.attempts)
        _retry_or_fail(row, "The worker died while this job was running.")
        count += 1
    return count


def _republish_unbegun() -> int:
    now = timezone.now()
    lost = Job.objects.filter(state=JobState.QUEUED).filter(
        Q(published_at__isnull=True, created_at__lt=now - _UNPUBLISHED_AFTER)
        | Q(published_at__lt=now - REPUBLISH_AFTER)
    )
    rows = list(lost.order_by("created_at")[:500])
    for row in rows:
        _publish(row)
    return len(rows)
