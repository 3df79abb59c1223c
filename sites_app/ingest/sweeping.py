"""Brings back what a crash dropped, and removes files that no row refers to."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import structlog
from django.utils import timezone

from hub.core.jobs.models import Job, JobState
from hub.core.storage.blobs import remove_partial_files, root
from sites_app.ingest.names import names_folder
from sites_app.ingest.packs import pack_files
from sites_app.models import QuarantinedFile, SeriesSegment, Submission, Trial, Upload
from sites_app.services.submission import FINISH_JOB, enqueue_finish
from sites_app.services.upload import PROCESS_JOB, enqueue_processing

log = structlog.get_logger(__name__)

_WITHOUT_JOB_AFTER = timedelta(seconds=10)
ORPHAN_AFTER_S = 3600.0
_JANITOR_INTERVAL_S = 600.0
_BATCH = 500
_last_cleaning = 0.0


def sweep_receiving() -> int:
    """Queue again what nobody is working on, and now and then clean the disk; return how many things."""
    return _sweep_uploads() + _sweep_submissions() + _clean_now_and_then()


def _sweep_uploads() -> int:
    """Uploads on the spool whose job is lost."""
    waiting = Upload.objects.filter(
        state=Upload.State.RECEIVED, created_at__lt=timezone.now() - _WITHOUT_JOB_AFTER
    ).exclude(trial__lock_state=Trial.LockState.LOCKED)
    rows = list(waiting.order_by("created_at")[:_BATCH])
    working = _keys_with_job(PROCESS_JOB, (row.pk for row in rows))
    lost = [row for row in rows if str(row.pk) not in working]
    for row in lost:
        enqueue_processing(row)
    return len(lost)


def _sweep_submissions() -> int:
    """Completed submissions whose uploads are all processed and which nobody finished."""
    stuck = (
        Submission.objects.filter(
            state__in=[Submission.State.RECEIVED, Submission.State.PROCESSING],
            completed_at__lt=timezone.now() - _WITHOUT_JOB_AFTER,
        )
        .exclude(uploads__state=Upload.State.RECEIVED)
        .exclude(trial__lock_state=Trial.LockState.LOCKED)
    )
    rows = list(stuck.order_by("completed_at")[:_BATCH])
    working = _keys_with_job(FINISH_JOB, (row.pk for row in rows))
    lost = [row for row in rows if str(row.pk) not in working]
    for row in lost:
        enqueue_finish(row)
    return len(lost)


def _keys_with_job(kind: str, ids: Iterable[UUID]) -> set[str]:
    keys = [str(identifier) for identifier in ids]
    unfinished = Job.objects.filter(kind=kind, key__in=keys, state__in=[JobState.QUEUED, JobState.RUNNING])
    return set(unfinished.values_list("key", flat=True))


def _clean_now_and_then() -> int:
    global _last_cleaning
    if time.monotonic() - _last_cleaning < _JANITOR_INTERVAL_S and _last_cleaning:
        return 0
    _last_cleaning = time.monotonic()
    return remove_orphans()


def remove_orphans(now_s: float | None = None) -> int:
    """Delete files older than an hour that no row refers to or that were never finished; return how many.

    Spool files also go when their upload is processed: a worker died between its commit and the removal.
    """
    before_s = (time.time() if now_s is None else now_s) - ORPHAN_AFTER_S
    spool = _old_files(root("spool").iterdir(), before_s)
    packs = _old_files(pack_files(), before_s)
    quarantined = _old_files(root("quarantine").iterdir(), before_s)
    names = _old_files(names_folder().iterdir(), before_s)
    waiting = Upload.objects.filter(state=Upload.State.RECEIVED, pk__in=spool).values_list("pk", flat=True)
    segments = SeriesSegment.objects.filter(pk__in=packs).values_list("pk", flat=True)
    held = QuarantinedFile.objects.filter(pk__in=quarantined).values_list("pk", flat=True)
    named = set(Upload.objects.filter(pk__in=names).values_list("pk", flat=True))
    named |= set(Submission.objects.filter(pk__in=names).values_list("pk", flat=True))
    count = remove_partial_files(before_s)
    for found, known in ((spool, waiting), (packs, segments), (quarantined, held), (names, named)):
        count += _remove(found, set(known))
    if count:
        log.info("storage.orphans_removed", count=count)
    return count


def _old_files(paths: Iterable[Path], before_s: float) -> dict[UUID, Path]:
    found = {}
    for path in paths:
        try:
            if path.is_file() and path.stat().st_mtime < before_s:
                found[UUID(path.stem)] = path
        except (ValueError, FileNotFoundError):
            continue
    return found


def _remove(found: dict[UUID, Path], known: set[UUID]) -> int:
    orphans = [path for identifier, path in found.items() if identifier not in known]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)
