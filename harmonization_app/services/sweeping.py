"""Mends runs and exports that nobody works on, and removes the folders of workers that were killed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from django.db import models, transaction
from django.utils import timezone

from harmonization_app.models import Export, ExportState, HarmonizationRun, RunState
from harmonization_app.services import export as export_services
from harmonization_app.services import fresh_process, run_export, run_state
from harmonization_app.services import run as run_services
from hub.core.jobs.models import Job, JobState
from hub.core.storage.blobs import root
from sites_app.models import LockState, Trial

log = structlog.get_logger(__name__)

_WITHOUT_JOB_AFTER = timedelta(seconds=10)
_BATCH = 500
# Longer than a job may take (see tasks.py): what is older belongs to nobody.
ABANDONED_AFTER_S = 24 * 3600.0
_CLEANING_INTERVAL_S = 600.0
MATRIX_PREFIX = "matrix-"
ENDED_WITHOUT_RESULT = "Its job ended without a result. Start it again."
_last_cleaning = 0.0

Settle = Callable[[Any, Job], None]
Enqueue = Callable[[Any], None]


def sweep_harmonization() -> int:
    """Give unfinished runs and exports without a job a job or their end, and clean the disk; return how many."""
    runs = HarmonizationRun.objects.filter(state__in=[RunState.QUEUED, RunState.RUNNING])
    exports = Export.objects.filter(state__in=[ExportState.QUEUED, ExportState.RUNNING])
    return (
        _mend(runs, run_services.JOB, _restart_run, _settle_run)
        + _mend(exports, export_services.JOB, export_services.enqueue_export, _settle_export)
        + _clean_now_and_then()
    )


def _mend(unfinished: models.QuerySet[Any], kind: str, enqueue: Enqueue, settle: Settle) -> int:
    """Enqueue rows that have no job, and end those whose job has ended; rows are read before their jobs."""
    waiting = unfinished.filter(created_at__lt=timezone.now() - _WITHOUT_JOB_AFTER).order_by("created_at")
    count = 0
    for row in list(waiting[:_BATCH]):
        job = Job.objects.filter(kind=kind, key=str(row.pk)).order_by("-created_at").first()
        if job is not None and not job.is_final:
            continue
        log.warning("harmonization.without_job", kind=kind, row=str(row.pk), job=job.state if job else "none")
        if job is None:
            with transaction.atomic():
                enqueue(row)
        else:
            settle(row, job)
        count += 1
    return count


def _restart_run(row: HarmonizationRun) -> None:
    primary = row.kind == HarmonizationRun.Kind.PRIMARY
    if primary and Trial.objects.get(pk=row.trial_id).lock_state == LockState.LOCKED:
        run_state.finish_run(row, RunState.FAILED, run_state.OVERTAKEN, {})
    else:
        run_services.enqueue_run(row)


def _settle_run(row: HarmonizationRun, job: Job) -> None:
    state = RunState.CANCELLED if job.state == JobState.CANCELLED else RunState.FAILED
    run_state.finish_run(row, state, job.reason or ENDED_WITHOUT_RESULT, {})


def _settle_export(row: Export, job: Job) -> None:
    export_services.fail_export({"export_id": str(row.pk)}, job.reason or ENDED_WITHOUT_RESULT)


def _clean_now_and_then() -> int:
    global _last_cleaning
    if _last_cleaning and time.monotonic() - _last_cleaning < _CLEANING_INTERVAL_S:
        return 0
    _last_cleaning = time.monotonic()
    return remove_abandoned()


def remove_abandoned(now_s: float | None = None) -> int:
    """Remove the folders and unpublished packages that killed workers left; return how many."""
    before_s = (time.time() if now_s is None else now_s) - ABANDONED_AFTER_S
    left = [
        *root(fresh_process.AREA).iterdir(),
        *root(run_export.AREA).iterdir(),
        *root(export_services.AREA).glob(f"*{export_services.PARTIAL}*"),
        *root("spool").glob(f"{MATRIX_PREFIX}*"),
    ]
    count = 0
    for path in left:
        with suppress(FileNotFoundError):  # its owner may have removed it since it was listed
            if path.stat().st_mtime < before_s:
                _remove(path)
                count += 1
    return count


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
