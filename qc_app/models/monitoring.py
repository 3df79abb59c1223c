"""What is noticed over time: scanner changes and drift."""

from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from sites_app.models import Scanner, ScannerEpoch, Series, Site, Trial
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class ChangeEvent(models.Model):
    """A scanner's software or hardware changed; the epoch that begins with it is a new batch."""

    class State(models.TextChoices):
        OPEN = "open", "open"
        REVIEWED = "reviewed", "reviewed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="change_events")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="change_events")
    scanner = models.ForeignKey(Scanner, on_delete=models.PROTECT, related_name="change_events")
    epoch = models.OneToOneField(ScannerEpoch, on_delete=models.PROTECT, related_name="change_event")
    kind = models.CharField(max_length=40, default="software")
    old = models.CharField(max_length=300)
    new = models.CharField(max_length=300)
    first_series = models.ForeignKey(
        Series, on_delete=models.PROTECT, null=True, related_name="change_events"
    )
    occurred_on = models.DateField(null=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    comment = models.CharField(max_length=1000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.scanner}: {self.old} to {self.new}"


class DriftAlert(models.Model):
    """A metric of a scanner left its control limits."""

    class State(models.TextChoices):
        OPEN = "open", "open"
        REVIEWED = "reviewed", "reviewed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="drift_alerts")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="drift_alerts")
    scanner = models.ForeignKey(Scanner, on_delete=models.PROTECT, related_name="drift_alerts")
    expected_key = models.CharField(max_length=80, blank=True)
    metric = models.CharField(max_length=60)
    chart = models.CharField(max_length=40)
    direction = models.CharField(max_length=10)
    signalled_by = models.ForeignKey(Series, on_delete=models.PROTECT, related_name="drift_alerts")
    detail = models.CharField(max_length=600)
    evidence = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    comment = models.CharField(max_length=1000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["scanner", "expected_key", "metric", "chart"],
                condition=Q(state="open"),
                name="one_drift_alert_is_open_per_chart",
            )
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.scanner} {self.metric} {self.direction}"
