"""Submissions: what a site sends for one visit, upload by upload and file by file."""

from django.conf import settings
from django.db import models

from hub.core.ids import uuid7
from sites_app.models.deidentification import DeidentificationProfile
from sites_app.models.guards import refused_when_trial_frozen, refused_when_trial_locked
from sites_app.models.scoping import ScopedManager
from sites_app.models.site import Site
from sites_app.models.subject import Subject, Visit
from sites_app.models.trial import Trial


class SubmissionState(models.TextChoices):
    OPEN = "open", "open"
    RECEIVED = "received", "received"
    PROCESSING = "processing", "processing"
    ACCEPTED = "accepted", "accepted"
    ACCEPTED_WITH_REJECTIONS = "accepted_with_rejections", "accepted with rejections"
    QUARANTINED = "quarantined", "quarantined"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


TRANSITIONS: dict[str, frozenset[str]] = {
    "open": frozenset({"received", "cancelled"}),
    "received": frozenset({"processing", "failed"}),
    "processing": frozenset({"accepted", "accepted_with_rejections", "quarantined", "failed"}),
    "accepted": frozenset(),
    "accepted_with_rejections": frozenset(),
    "quarantined": frozenset({"accepted_with_rejections"}),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


class Submission(models.Model):
    """One atomic transfer by a site for a subject's visit."""

    State = SubmissionState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="submissions")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="submissions")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="submissions")
    visit = models.ForeignKey(Visit, on_delete=models.PROTECT, related_name="submissions")
    profile = models.ForeignKey(DeidentificationProfile, on_delete=models.PROTECT, related_name="submissions")
    channel = models.CharField(max_length=40, default="rest")
    form = models.JSONField(default=dict, blank=True)
    manifest = models.JSONField(default=list, blank=True)
    state = models.CharField(max_length=24, choices=SubmissionState.choices, default=SubmissionState.OPEN)
    reason = models.CharField(max_length=1000, blank=True)
    counts = models.JSONField(default=dict)
    receipt_digest = models.CharField(max_length=64, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="submissions"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["site", "-created_at"], name="submission_by_site"),
            models.Index(fields=["state", "completed_at"], name="submission_by_state"),
        ]
        triggers = [refused_when_trial_locked(), refused_when_trial_frozen()]

    def __str__(self) -> str:
        return f"{self.visit} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self.state] or self.state == SubmissionState.QUARANTINED


class UploadState(models.TextChoices):
    RECEIVED = "received", "received"
    PROCESSED = "processed", "processed"
    FAILED = "failed", "failed"


class Upload(models.Model):
    """One request body on the spool: durable before it is answered, processed by a worker.

    `members` holds [offset, size, sha256] per file of a multipart body; an archive's are found by unpacking.
    Original file names may identify a person: they are kept in quarantine (`sites_app.ingest.names`).
    """

    State = UploadState

    class Kind(models.TextChoices):
        DICOM = "dicom", "one DICOM file"
        ZIP = "zip", "zip archive"
        MULTIPART = "multipart", "multipart body"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="uploads")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="uploads")
    submission = models.ForeignKey(Submission, on_delete=models.PROTECT, related_name="uploads")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    members = models.JSONField(default=list)
    state = models.CharField(max_length=10, choices=UploadState.choices, default=UploadState.RECEIVED)
    reason = models.CharField(max_length=1000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    processed_at = models.DateTimeField(null=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["submission", "sha256"], name="the_same_body_is_uploaded_once_per_submission"
            )
        ]
        indexes = [
            models.Index(
                fields=["created_at"], condition=models.Q(state="received"), name="upload_not_processed"
            )
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.kind} of {self.size} bytes"


class FileOutcome(models.TextChoices):
    ACCEPTED = "accepted", "accepted"
    DUPLICATE = "duplicate", "duplicate"
    REJECTED = "rejected", "rejected"
    QUARANTINED = "quarantined", "quarantined"
    IGNORED = "ignored", "ignored"


class SubmissionFile(models.Model):
    """What became of one file. `ordinal` is its place in the upload; its name stays in quarantine."""

    Outcome = FileOutcome

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="submission_files")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="submission_files")
    submission = models.ForeignKey(Submission, on_delete=models.PROTECT, related_name="files")
    upload = models.ForeignKey(Upload, on_delete=models.PROTECT, related_name="files")
    ordinal = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    outcome = models.CharField(max_length=12, choices=FileOutcome.choices)
    code = models.CharField(max_length=60, blank=True)
    detail = models.CharField(max_length=600, blank=True)
    action = models.CharField(max_length=400, blank=True)
    instance_id = models.UUIDField(null=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["upload", "ordinal"]
        constraints = [
            models.UniqueConstraint(fields=["upload", "ordinal"], name="a_file_of_an_upload_has_one_outcome")
        ]
        indexes = [models.Index(fields=["submission", "outcome"], name="file_by_outcome")]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"file {self.ordinal + 1}: {self.outcome}"


class QuarantinedFile(models.Model):
    """A received file that was not accepted, kept apart with its identifiers until a person decides."""

    class State(models.TextChoices):
        HELD = "held", "held"
        DISCARDED = "discarded", "discarded"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="quarantined_files")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="quarantined_files")
    submission = models.ForeignKey(Submission, on_delete=models.PROTECT, related_name="quarantined_files")
    file = models.OneToOneField(SubmissionFile, on_delete=models.PROTECT, related_name="quarantined")
    state = models.CharField(max_length=10, choices=State.choices, default=State.HELD)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"quarantined {self.file_id}"
