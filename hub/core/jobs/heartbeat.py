"""What a running job says of itself: that it lives, and how far it is."""

from __future__ import annotations

import threading
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from hub.core.jobs.models import Job, JobState

log = structlog.get_logger(__name__)
_INTERVAL_S = 3.0


class Heartbeat:
    """Context manager: a thread that renews `heartbeat_at` while the job runs."""

    def __init__(self, job_id: UUID, attempt: int) -> None:
        self._job_id = job_id
        self._attempt = attempt
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            try:
                Job.objects.filter(pk=self._job_id, attempts=self._attempt, state=JobState.RUNNING).update(
                    heartbeat_at=timezone.now()
                )
            except (DatabaseError, InterfaceError) as error:
                log.warning("job.heartbeat_failed", error=type(error).__name__)
            finally:
                connection.close()


class JobContext:
    """Handed to a job's function; `progress` also notices a requested cancellation."""

    def __init__(self, *, job_id: UUID, attempt: int) -> None:
        self.job_id = job_id
        self.attempt = attempt

    def progress(self, share: float, text: str = "") -> None:
        """Store how far the job is (0 to 1). Raises JobCancelled when cancellation was asked for."""
        from hub.core.jobs.services import JobCancelled

        Job.objects.filter(pk=self.job_id).update(
            progress=min(max(share, 0.0), 1.0), progress_text=text[:300], heartbeat_at=timezone.now()
        )
        if Job.objects.filter(pk=self.job_id, cancel_requested=True).exists():
            raise JobCancelled
