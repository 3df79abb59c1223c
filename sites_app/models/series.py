"""Studies, series, their packs and instances: what was accepted."""

from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager
from sites_app.models.site import Scanner, ScannerEpoch, Site
from sites_app.models.subject import Subject, Visit
from sites_app.models.submission import Submission, Upload
from sites_app.models.trial import Trial


class Study(models.Model):
    """A de-identified study; its UID is the mapped one."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="studies")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="studies")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="studies")
    visit = models.ForeignKey(Visit, on_delete=models.PROTECT, related_name="studies")
    study_instance_uid = models.CharField(max_length=64)
    study_date = models.DateField(null=True)
    description = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["visit", "study_instance_uid"], name="a_study_is_known_once_at_its_visit"
            )
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.study_instance_uid


class SeriesState(models.TextChoices):
    RECEIVED = "received", "received"
    CHECKING = "checking", "checking"
    CHECKED = "checked", "checked"
    FAILED = "failed", "failed"


SERIES_TRANSITIONS: dict[str, frozenset[str]] = {
    "received": frozenset({"checking"}),
    "checking": frozenset({"checked", "failed", "received"}),
    "checked": frozenset({"received"}),
    "failed": frozenset({"received"}),
}


class Series(models.Model):
    """A de-identified series. `observation` is what was read from all its instances (SeriesObservation)."""

    State = SeriesState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="series")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="series")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="series")
    visit = models.ForeignKey(Visit, on_delete=models.PROTECT, related_name="series")
    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="series")
    submission = models.ForeignKey(Submission, on_delete=models.PROTECT, related_name="series")
    scanner = models.ForeignKey(Scanner, on_delete=models.PROTECT, related_name="series", null=True)
    scanner_epoch = models.ForeignKey(
        ScannerEpoch, on_delete=models.PROTECT, related_name="series", null=True
    )
    series_instance_uid = models.CharField(max_length=64)
    modality = models.CharField(max_length=16)
    description = models.CharField(max_length=200, blank=True)
    acquired_on = models.DateField(null=True)
    instance_count = models.PositiveIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    observation = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=SeriesState.choices, default=SeriesState.RECEIVED)
    reason = models.CharField(max_length=1000, blank=True)
    received_at = models.DateTimeField()
    checked_at = models.DateTimeField(null=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-received_at"]
        verbose_name_plural = "series"
        constraints = [
            models.UniqueConstraint(
                fields=["study", "series_instance_uid"], name="a_series_is_known_once_in_its_study"
            )
        ]
        indexes = [
            models.Index(fields=["site", "-received_at"], name="series_by_site"),
            models.Index(fields=["visit"], name="series_by_visit"),
            models.Index(fields=["scanner", "received_at"], name="series_by_scanner"),
            models.Index(fields=["received_at"], condition=~Q(state="checked"), name="series_not_checked"),
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.description or self.series_instance_uid


class SeriesSegment(models.Model):
    """What one upload added to a series: an append-only pack file, and the facts of its instances by column."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="series_segments")
    series = models.ForeignKey(Series, on_delete=models.PROTECT, related_name="segments")
    upload = models.ForeignKey(Upload, on_delete=models.PROTECT, related_name="segments")
    size = models.BigIntegerField()
    instance_count = models.PositiveIntegerField()
    columns = models.JSONField()
    deid_report = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager(site_path="series__site_id")

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["series", "upload"], name="an_upload_adds_one_segment_to_a_series"
            )
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"segment of {self.series_id}"


class Instance(models.Model):
    """One accepted instance: where it lies in its segment's pack, and its digest.

    `original_sha256` is of the file as received: the same SOP instance with the same content is a duplicate,
    with other content a conflict. A site's UIDs say nothing about another site's.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="instances")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="instances")
    series = models.ForeignKey(Series, on_delete=models.PROTECT, related_name="instances")
    segment = models.ForeignKey(SeriesSegment, on_delete=models.PROTECT, related_name="instances")
    sop_instance_uid = models.CharField(max_length=64)
    sop_class_uid = models.CharField(max_length=64)
    transfer_syntax_uid = models.CharField(max_length=64)
    instance_number = models.IntegerField(null=True)
    frames = models.PositiveIntegerField(default=1)
    offset = models.BigIntegerField()
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    original_sha256 = models.CharField(max_length=64)

    objects = ScopedManager()

    class Meta:
        ordering = ["series", "instance_number", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "sop_instance_uid"], name="a_sop_instance_is_stored_once_per_site"
            )
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.sop_instance_uid
