"""What a worker does with one upload: sort its files, then commit all their rows at once.

It may run twice, and by two workers at once: the upload's row, locked in the committing transaction, decides.
Until that commit nothing refers to the files written; the janitor removes what a crash leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.storage.blobs import require_free_space
from sites_app.ingest import refusals
from sites_app.ingest.index import advisory_lock, insert_files, insert_instances
from sites_app.ingest.members import received_files
from sites_app.ingest.names import store_names
from sites_app.ingest.pseudonyms import current_profile, deidentifier_for
from sites_app.ingest.quarantine_area import QuarantineArea
from sites_app.ingest.sorting import FileRecord, PackedSeries, Patient, UploadSorter
from sites_app.ingest.spool import remove_spool_file, spool_path
from sites_app.models import (
    FileOutcome,
    Instance,
    QuarantinedFile,
    SeriesSegment,
    Subject,
    Submission,
    SubmissionFile,
    Upload,
)
from sites_app.selectors.series import stored_originals
from sites_app.services.series import known_series, segment_columns
from sites_app.services.submission import ACTIVE_STATES, finish_submission, transition

log = structlog.get_logger(__name__)

_MOST_PASSES = 5

Progress = Callable[[int], None]


class _Outdated(Exception):
    """Another worker changed what this pass had assumed: the pass is repeated."""


def process_upload(*, upload_id: UUID, progress: Progress = lambda count: None) -> None:
    """Process one upload, and finish its submission where it was the last one.

    Does nothing where the upload is processed already or another worker is at it.
    """
    with advisory_lock("upload", upload_id) as held:
        if not held:
            log.info("upload.busy", upload=str(upload_id))
            return
        for _ in range(_MOST_PASSES):
            try:
                _process_once(upload_id, progress)
            except _Outdated:
                log.info("upload.pass_repeated", upload=str(upload_id))
            else:
                break
        else:
            raise RuntimeError(f"upload {upload_id} changed under every pass")
    finish_submission(submission_id=Upload.objects.values_list("submission_id", flat=True).get(pk=upload_id))


def fail_upload(*, upload_id: UUID, reason: str) -> None:
    """Give an upload up: what was received is kept in quarantine and the submission can end."""
    spool = spool_path(upload_id)
    area = QuarantineArea()
    with transaction.atomic():
        upload = Upload.objects.select_related("submission").get(pk=upload_id)
        submission = Submission.objects.select_for_update(no_key=True).get(pk=upload.submission_id)
        upload = Upload.objects.select_for_update(no_key=True).get(pk=upload_id)
        if upload.state != Upload.State.RECEIVED:
            return
        whole = FileRecord(0, upload.sha256, upload.size, FileOutcome.QUARANTINED)
        whole.refuse(refusals.POISON)
        if spool.exists():
            whole.quarantine_id = area.adopt(spool)
        _write_files(submission, upload, [whole])
        upload.state, upload.reason = Upload.State.FAILED, reason[:1000]
        upload.processed_at = timezone.now()
        upload.save(update_fields=["state", "reason", "processed_at"])
        record(actor=None, action="upload.failed", obj=upload, reason=reason[:1000])
        transaction.on_commit(lambda: remove_spool_file(upload_id))
    finish_submission(submission_id=submission.pk)


def _process_once(upload_id: UUID, progress: Progress) -> None:
    upload = Upload.objects.select_related("submission__subject__trial", "submission__profile").get(
        pk=upload_id
    )
    submission = upload.submission
    if upload.state != Upload.State.RECEIVED or submission.state not in ACTIVE_STATES:
        return
    if not spool_path(upload_id).exists():
        fail_upload(upload_id=upload_id, reason="The received file is no longer on the hub's disk.")
        return
    require_free_space()
    with transaction.atomic():
        profile = current_profile(submission.trial)
    sorter = UploadSorter(
        trial_id=submission.trial_id,
        visit_id=submission.visit_id,
        deidentifier=deidentifier_for(submission.subject, profile),
        patient=Patient(submission.subject.code, submission.subject.patient_digest),
        known_instances=lambda uid: stored_originals(submission.site_id, uid),
        progress=progress,
    )
    try:
        sorter.run(received_files(upload))
        store_names(upload_id, sorter.names)
    except BaseException:
        sorter.discard()
        raise
    try:
        committed = _commit(submission.pk, upload_id, profile.pk, sorter)
    except _Outdated:
        # Our own refusal proves that there are no rows; after anything else, a connection lost at the
        # commit above all, the janitor removes files without rows.
        sorter.discard()
        raise
    if not committed:
        sorter.discard()
    remove_spool_file(upload_id)


def _commit(submission_id: UUID, upload_id: UUID, profile_id: UUID, sorter: UploadSorter) -> bool:
    """Write every row of a sorted upload in one transaction; False where it was processed meanwhile."""
    with transaction.atomic():
        submission = Submission.objects.select_for_update(no_key=True).get(pk=submission_id)
        upload = Upload.objects.select_for_update(no_key=True).get(pk=upload_id)
        if upload.state != Upload.State.RECEIVED or submission.state not in ACTIVE_STATES:
            return False
        _pin_patient(submission.subject_id, sorter)
        if submission.profile_id != profile_id:
            submission.profile_id = profile_id
            submission.save(update_fields=["profile"])
        segments = [
            (_add_segment(submission, upload, packed), packed) for _, packed in sorted(sorter.series.items())
        ]
        _write_files(submission, upload, sorter.files)
        upload.state, upload.processed_at = Upload.State.PROCESSED, timezone.now()
        upload.save(update_fields=["state", "processed_at"])
        # The trial's audit chain is locked from its first event on: everything slow comes before it.
        if submission.state == Submission.State.RECEIVED:
            transition(submission, Submission.State.PROCESSING, actor=None)
        for segment, packed in segments:
            _record_segment(submission, segment, packed)
        record(
            actor=None,
            action="upload.processed",
            obj=upload,
            new={"files": len(sorter.files), "series": len(sorter.series)},
            items=[file.sha256 for file in sorter.files],
        )
    return True


def _pin_patient(subject_id: UUID, sorter: UploadSorter) -> None:
    """Keep whose images the subject's are. Raises _Outdated where another upload pinned somebody else."""
    subject = Subject.objects.select_for_update(no_key=True).get(pk=subject_id)
    if subject.patient_digest and subject.patient_digest != sorter.patient_digest:
        raise _Outdated
    if sorter.series and not subject.patient_digest and sorter.patient_digest:
        subject.patient_digest = sorter.patient_digest
        subject.save(update_fields=["patient_digest"])


def _add_segment(submission: Submission, upload: Upload, packed: PackedSeries) -> SeriesSegment:
    series = known_series(submission, packed.facts)
    segment = SeriesSegment.objects.create(
        id=packed.pack.segment_id,
        trial_id=submission.trial_id,
        series=series,
        upload=upload,
        size=packed.pack.size,
        instance_count=len(packed.instances),
        columns=segment_columns([item.facts for item in packed.instances]),
        deid_report={action: sorted(tags) for action, tags in sorted(packed.actions.items())},
    )
    rows = [
        Instance(
            id=item.file.instance_id,
            trial_id=submission.trial_id,
            site_id=submission.site_id,
            series_id=series.pk,
            segment_id=segment.pk,
            sop_instance_uid=item.facts.sop_instance_uid,
            sop_class_uid=item.facts.sop_class_uid,
            transfer_syntax_uid=item.facts.transfer_syntax_uid,
            instance_number=item.facts.instance_number,
            frames=item.facts.frames,
            offset=item.offset,
            size=item.size,
            sha256=item.sha256,
            original_sha256=item.file.sha256,
        )
        for item in packed.instances
    ]
    if insert_instances(rows) != len(rows):
        raise _Outdated
    return segment


def _record_segment(submission: Submission, segment: SeriesSegment, packed: PackedSeries) -> None:
    record(
        actor=submission.created_by,
        action="series.segment_stored",
        obj=segment,
        subscope=submission.site_id,
        new={
            "series": str(segment.series_id),
            "submission": str(submission.pk),
            "upload": str(segment.upload_id),
        },
        items=[item.sha256 for item in packed.instances],
    )


def _write_files(submission: Submission, upload: Upload, files: list[FileRecord]) -> None:
    rows = [
        SubmissionFile(
            id=file.id,
            trial_id=submission.trial_id,
            site_id=submission.site_id,
            submission_id=submission.pk,
            upload_id=upload.pk,
            ordinal=file.ordinal,
            sha256=file.sha256,
            size=file.size,
            outcome=file.outcome,
            code=file.code,
            detail=file.detail,
            action=file.action,
            instance_id=file.instance_id,
        )
        for file in files
    ]
    insert_files(rows)
    QuarantinedFile.objects.bulk_create(
        QuarantinedFile(
            id=file.quarantine_id,
            trial_id=submission.trial_id,
            site_id=submission.site_id,
            submission_id=submission.pk,
            file_id=file.id,
        )
        for file in files
        if file.quarantine_id is not None
    )
