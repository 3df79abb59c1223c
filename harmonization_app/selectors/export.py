"""Reading export packages: the newest of a trial with the progress of those being made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harmonization_app.models import Export
from harmonization_app.services.export import visible_exports
from hub.core.models import Job
from sites_app.models import Trial

SHOWN = 20


@dataclass(frozen=True)
class ExportRow:
    """An export and how far it is; `progress` in [0, 1]."""

    export: Export
    progress: float
    progress_text: str


def exports_of(user: Any, trial: Trial) -> list[ExportRow]:
    """Return the newest exports of a trial that the user may see, newest first."""
    rows = list(visible_exports(user).filter(trial=trial).select_related("created_by", "trial")[:SHOWN])
    jobs = Job.objects.in_bulk([row.job_id for row in rows if row.job_id and not row.is_final])
    found = []
    for row in rows:
        job = jobs.get(row.job_id)
        found.append(ExportRow(row, job.progress if job else 0.0, job.progress_text if job else ""))
    return found
