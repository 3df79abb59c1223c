"""Taking back what an open submission had brought: nobody has seen it yet."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from sites_app.ingest.names import remove_names
from sites_app.ingest.packs import pack_path
from sites_app.ingest.quarantine_area import quarantine_path
from sites_app.ingest.spool import spool_path
from sites_app.models import (
    Instance,
    QuarantinedFile,
    Series,
    SeriesSegment,
    Study,
    Subject,
    Submission,
    SubmissionFile,
    Upload,
)


def withdraw_received(*, submission: Submission) -> None:
    """Delete rows and, once that is committed, files of a submission whose row the caller has locked."""
    uploads = list(Upload.objects.select_for_update(no_key=True).filter(submission=submission))
    segments = list(SeriesSegment.objects.filter(upload__in=uploads).select_related("series"))
    quarantined = QuarantinedFile.objects.filter(submission=submission)
    paths = [spool_path(upload.pk) for upload in uploads]
    paths += [quarantine_path(row) for row in quarantined.values_list("pk", flat=True)]
    paths += [
        pack_path(row.trial_id, row.series.visit_id, row.series.series_instance_uid, row.pk)
        for row in segments
    ]
    quarantined.delete()
    SubmissionFile.objects.filter(submission=submission).delete()
    Instance.objects.filter(segment__in=segments).delete()
    SeriesSegment.objects.filter(pk__in=[row.pk for row in segments]).delete()
    Series.objects.filter(pk__in=[row.series_id for row in segments], segments__isnull=True).delete()
    Study.objects.filter(visit_id=submission.visit_id, series__isnull=True).delete()
    if not Instance.objects.filter(series__subject_id=submission.subject_id).exists():
        Subject.objects.filter(pk=submission.subject_id).exclude(patient_digest="").update(patient_digest="")
    Upload.objects.filter(pk__in=[row.pk for row in uploads]).update(
        state=Upload.State.FAILED, reason="The submission was cancelled.", processed_at=timezone.now()
    )
    names = [submission.pk, *(upload.pk for upload in uploads)]

    def remove_files() -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        for owner in names:
            remove_names(owner)

    transaction.on_commit(remove_files)
