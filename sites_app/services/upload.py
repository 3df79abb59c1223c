"""Receiving request bodies: on the disk first, then one row and one job in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

from django.db import IntegrityError, transaction
from python_multipart.multipart import parse_options_header

from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict, HubError, InvalidInput, UnsupportedContent
from hub.core.ids import uuid7
from hub.core.jobs.services import enqueue
from hub.core.storage.blobs import require_free_space
from sites_app.ingest.multipart import SpooledMember, spool_multipart
from sites_app.ingest.names import plain_name, remove_names, store_names
from sites_app.ingest.spool import CHUNK_BYTES, SpoolFile, remove_spool_file
from sites_app.models import Submission, Upload
from sites_app.permissions import UPLOADERS, require_role
from sites_app.services.submission import require_open_trial

PROCESS_JOB = "sites.process_upload"

ACCEPTED_TYPES = {
    "application/dicom": Upload.Kind.DICOM,
    "application/zip": Upload.Kind.ZIP,
    "application/x-zip-compressed": Upload.Kind.ZIP,
    "multipart/form-data": Upload.Kind.MULTIPART,
}


@dataclass(frozen=True)
class RequestBody:
    """A request's body as a stream, with what its headers say of it; `length` None where they do not."""

    content_type: str
    length: int | None
    stream: BinaryIO
    name: str = ""

    @property
    def media_type(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    def pieces(self) -> Iterable[bytes]:
        """Yield the body in pieces of CHUNK_BYTES. Raises InvalidInput where it is cut short."""
        received = 0
        while piece := self.stream.read(CHUNK_BYTES):
            received += len(piece)
            yield piece
        if self.length is not None and received != self.length:
            raise InvalidInput(
                f"The body ended after {received:,} of {self.length:,} bytes. Nothing was kept; send it again."
            )


@dataclass(frozen=True)
class ReceivedUpload:
    """A durable upload; `repeated` where the same content had been sent to this submission before."""

    upload: Upload
    files: tuple[SpooledMember, ...]
    repeated: bool


def receive_upload(*, actor: Any, submission: Submission, body: RequestBody) -> ReceivedUpload:
    """Store a body durably and have it processed; the same body twice is answered alike and stored once.

    Raises NotAllowed, Conflict (submission not open, trial frozen), UnsupportedContent, InvalidInput,
    StorageFull.
    """
    require_role(actor, UPLOADERS, submission.trial_id, submission.site_id, "send images for this site")
    kind = _kind(body)
    _require_open(submission)
    require_open_trial(submission.trial)
    require_free_space()
    upload_id = uuid7()
    upload, files = _spool(upload_id, submission, kind, body)
    try:
        if any(file.name for file in files):
            store_names(upload_id, [file.name for file in files])
        stored = _register(actor, submission, upload)
    except HubError:
        # Only a refusal of our own proves that there is no row; after anything else, a connection lost at
        # the commit above all, the janitor removes a file without a row.
        _forget(upload_id)
        raise
    if stored.pk != upload_id:
        _forget(upload_id)
    return ReceivedUpload(stored, tuple(files), repeated=stored.pk != upload_id)


def _kind(body: RequestBody) -> str:
    kind = ACCEPTED_TYPES.get(body.media_type)
    if kind is None:
        accepted = ", ".join(ACCEPTED_TYPES)
        raise UnsupportedContent(
            f"Content-Type {body.media_type[:100] or '(none)'} is not accepted here. Send one of: {accepted}."
        )
    if body.length == 0:
        raise InvalidInput("The body is empty. Send one DICOM file, one zip archive, or a form with files.")
    return str(kind)


def _require_open(submission: Submission) -> None:
    if submission.state != Submission.State.OPEN:
        raise Conflict(
            f"This submission is {submission.get_state_display()} and takes no more files."
            " Open a new submission for them."
        )


def _spool(
    upload_id: UUID, submission: Submission, kind: str, body: RequestBody
) -> tuple[Upload, list[SpooledMember]]:
    """Write the body to the spool and return the row to be, not saved, with the files it holds."""
    with SpoolFile(upload_id) as spool:
        if kind == Upload.Kind.MULTIPART:
            files = spool_multipart(body.content_type, body.pieces(), spool)
            # A repeated form has another boundary: its identity is that of its files.
            sha256 = digest([file.sha256 for file in files])
        else:
            for piece in body.pieces():
                spool.write(piece)
            if not spool.size:
                raise InvalidInput("The body is empty. Send one DICOM file or one zip archive.")
            sha256 = spool.sha256
            files = [SpooledMember(plain_name(body.name), 0, spool.size, sha256)]
        spool.commit()
    upload = Upload(
        id=upload_id,
        trial_id=submission.trial_id,
        site_id=submission.site_id,
        submission_id=submission.pk,
        kind=kind,
        size=spool.size,
        sha256=sha256,
        members=[[file.offset, file.size, file.sha256] for file in files]
        if kind == Upload.Kind.MULTIPART
        else [],
    )
    return upload, files


def _register(actor: Any, submission: Submission, upload: Upload) -> Upload:
    """Save the row and queue its job; return the row of an earlier upload with the same content instead."""
    try:
        with transaction.atomic():
            row = Submission.objects.select_for_update(no_key=True).get(pk=submission.pk)
            earlier = Upload.objects.filter(submission=row, sha256=upload.sha256).first()
            if earlier is not None:
                return earlier
            _require_open(row)
            upload.save(force_insert=True)
            record(
                actor=actor,
                action="upload.received",
                obj=upload,
                new={"submission": str(row.pk), "kind": upload.kind, "size": upload.size},
                items=[upload.sha256],
            )
            enqueue_processing(upload)
    except IntegrityError:
        return Upload.objects.get(submission=submission, sha256=upload.sha256)
    return upload


def enqueue_processing(upload: Upload) -> None:
    """Queue the processing of an upload; one that is queued already is not queued twice."""
    enqueue(
        PROCESS_JOB,
        key=str(upload.pk),
        arguments={"upload_id": str(upload.pk)},
        scope=upload.trial_id,
        subscope=upload.site_id,
    )


def file_name_in(disposition: str) -> str:
    """Return the file name of a Content-Disposition header (RFC 6266), "" where it names none."""
    _, options = parse_options_header(disposition.encode("latin-1", "replace"))
    return options.get(b"filename", b"").decode("utf-8", "replace")


def _forget(upload_id: UUID) -> None:
    remove_spool_file(upload_id)
    remove_names(upload_id)
