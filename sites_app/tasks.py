"""Background work of receiving."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.registry import job
from sites_app.services import processing, submission
from sites_app.services.submission import FINISH_JOB
from sites_app.services.upload import PROCESS_JOB


def _upload_given_up(arguments: dict[str, Any], reason: str) -> None:
    processing.fail_upload(upload_id=UUID(arguments["upload_id"]), reason=reason)


def _submission_given_up(arguments: dict[str, Any], reason: str) -> None:
    submission.fail_submission(submission_id=UUID(arguments["submission_id"]), reason=reason)


@job(name=PROCESS_JOB, queue="ingest", soft_limit_s=1800, hard_limit_s=1860, on_failure=_upload_given_up)
def process_upload(context: JobContext, *, upload_id: str) -> None:
    processing.process_upload(
        upload_id=UUID(upload_id), progress=lambda count: context.progress(0.0, f"{count} files")
    )


@job(name=FINISH_JOB, queue="ingest", on_failure=_submission_given_up)
def finish_submission(context: JobContext, *, submission_id: str) -> None:
    submission.finish_submission(submission_id=UUID(submission_id))
