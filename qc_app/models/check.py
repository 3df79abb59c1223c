"""The judgement of a series or a visit: verdicts, metrics, QC outcome, preview."""

from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from qc_app.models.protocol import Protocol, QCProfile
from sites_app.models import Scanner, Series, Site, Trial, Visit
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class ProtocolOutcome(models.TextChoices):
    COMPLIANT = "compliant", "compliant"
    DEVIANT = "deviant", "deviant"
    NOT_EVALUABLE = "not_evaluable", "not evaluable"


class QCOutcome(models.TextChoices):
    PASS = "pass", "pass"
    WARN = "warn", "warn"
    FAIL = "fail", "fail"
    NOT_EVALUABLE = "not_evaluable", "not evaluable"


class SeriesCheck(models.Model):
    """One judgement of a series by one protocol version and one QC profile; the newest is `is_current`.

    `verdicts` and `metrics` hold the API's form of each (see docs). `match` says which expected series it
    was taken for and why. `protocol_outcome` is compliant only when every verdict is. `replaced_by` is the
    compliant series of the same visit that took this one's place.
    """

    Outcome = ProtocolOutcome
    QCOutcome = QCOutcome

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="series_checks")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="series_checks")
    series = models.ForeignKey(Series, on_delete=models.PROTECT, related_name="checks")
    is_current = models.BooleanField(default=True)
    protocol = models.ForeignKey(Protocol, on_delete=models.PROTECT, null=True, related_name="series_checks")
    protocol_digest = models.CharField(max_length=64, blank=True)
    qc_profile = models.ForeignKey(
        QCProfile, on_delete=models.PROTECT, null=True, related_name="series_checks"
    )
    expected_key = models.CharField(max_length=80, blank=True)
    match = models.JSONField(default=dict)
    verdicts = models.JSONField(default=list)
    protocol_outcome = models.CharField(max_length=14, choices=ProtocolOutcome.choices)
    deviant_count = models.PositiveIntegerField(default=0)
    not_evaluable_count = models.PositiveIntegerField(default=0)
    worst_severity = models.CharField(max_length=10, blank=True)
    metrics = models.JSONField(default=list)
    qc_outcome = models.CharField(max_length=14, choices=QCOutcome.choices)
    qc_reason = models.CharField(max_length=600, blank=True)
    replaced_by = models.ForeignKey(
        Series, on_delete=models.PROTECT, null=True, related_name="checks_replaced"
    )
    preview_digest = models.CharField(max_length=64, blank=True)
    engine = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["series"], condition=Q(is_current=True), name="a_series_has_one_current_check"
            ),
            models.CheckConstraint(
                condition=~Q(protocol_outcome="compliant")
                | Q(protocol__isnull=False, deviant_count=0, not_evaluable_count=0),
                name="compliant_means_judged_and_nothing_found",
            ),
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.series_id}: {self.protocol_outcome}, QC {self.qc_outcome}"


class VisitCheck(models.Model):
    """The judgement of a whole visit: expected series that are missing or too many; date window."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="visit_checks")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="visit_checks")
    visit = models.OneToOneField(Visit, on_delete=models.PROTECT, related_name="check_result")
    protocol = models.ForeignKey(Protocol, on_delete=models.PROTECT, null=True, related_name="visit_checks")
    protocol_digest = models.CharField(max_length=64, blank=True)
    verdicts = models.JSONField(default=list)
    protocol_outcome = models.CharField(max_length=14, choices=ProtocolOutcome.choices)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["visit"]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.visit_id}: {self.protocol_outcome}"


class MetricValue(models.Model):
    """One metric of one series, narrow, for dashboards and drift charts (current check only)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="metric_values")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="metric_values")
    series = models.ForeignKey(Series, on_delete=models.PROTECT, related_name="metric_values")
    scanner = models.ForeignKey(Scanner, on_delete=models.PROTECT, null=True, related_name="metric_values")
    expected_key = models.CharField(max_length=80, blank=True)
    name = models.CharField(max_length=60)
    unit = models.CharField(max_length=30, blank=True)
    value = models.FloatField(null=True)
    outcome = models.CharField(max_length=14, choices=QCOutcome.choices)
    acquired_on = models.DateField(null=True)
    received_at = models.DateTimeField()

    objects = ScopedManager()

    class Meta:
        ordering = ["received_at"]
        constraints = [
            models.UniqueConstraint(fields=["series", "name"], name="a_metric_has_one_value_per_series")
        ]
        indexes = [models.Index(fields=["trial", "name", "scanner", "received_at"], name="metric_by_scanner")]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.name} {self.value}"
