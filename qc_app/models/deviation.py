"""Deviations from the protocol and queries to the site."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from hub.core.models import ElectronicSignature
from qc_app.models.protocol import Protocol
from sites_app.models import Scanner, Series, Site, Subject, Trial, Visit
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class Severity(models.TextChoices):
    INFO = "info", "info"
    MINOR = "minor", "minor"
    MAJOR = "major", "major"
    CRITICAL = "critical", "critical"


class DeviationState(models.TextChoices):
    OPEN = "open", "open"
    ACKNOWLEDGED = "acknowledged", "acknowledged"
    WAIVED = "waived", "waived"
    RESOLVED = "resolved", "resolved"
    REJECTED = "rejected", "rejected"


DEVIATION_TRANSITIONS: dict[str, frozenset[str]] = {
    "open": frozenset({"acknowledged", "waived", "resolved", "rejected"}),
    "acknowledged": frozenset({"waived", "resolved", "rejected"}),
    "waived": frozenset(),
    "resolved": frozenset(),
    "rejected": frozenset(),
}


class Deviation(models.Model):
    """A departure from the protocol: one rule, one series (or one visit), with its lifecycle.

    `kind` says whether the value departs (deviant) or could not be judged (not_evaluable). `waiver` is
    {scope, expires_on}; one that another deviation's waiver covers names that in `covered_by`, without a
    signature of its own.
    """

    State = DeviationState
    Severity = Severity

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="deviations")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="deviations")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="deviations")
    visit = models.ForeignKey(Visit, on_delete=models.PROTECT, related_name="deviations")
    series = models.ForeignKey(Series, on_delete=models.PROTECT, null=True, related_name="deviations")
    scanner = models.ForeignKey(Scanner, on_delete=models.PROTECT, null=True, related_name="deviations")
    protocol = models.ForeignKey(Protocol, on_delete=models.PROTECT, related_name="deviations")
    protocol_digest = models.CharField(max_length=64)
    expected_key = models.CharField(max_length=80, blank=True)
    rule = models.CharField(max_length=120)
    parameter = models.CharField(max_length=80)
    label = models.CharField(max_length=200)
    kind = models.CharField(max_length=14)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    important = models.BooleanField(default=False)
    verdict = models.JSONField()
    detail = models.CharField(max_length=1000)
    action = models.CharField(max_length=1000, blank=True)
    state = models.CharField(max_length=12, choices=DeviationState.choices, default=DeviationState.OPEN)
    reason = models.CharField(max_length=1000, blank=True)
    resolved_by_series = models.ForeignKey(
        Series, on_delete=models.PROTECT, null=True, related_name="deviations_resolved"
    )
    waiver = models.JSONField(null=True)
    signature = models.ForeignKey(
        ElectronicSignature, on_delete=models.PROTECT, null=True, related_name="deviations_waived"
    )
    opened_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="deviations_closed"
    )

    objects = ScopedManager()

    class Meta:
        ordering = ["-opened_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["series", "rule"],
                condition=Q(series__isnull=False, state__in=["open", "acknowledged"]),
                name="a_rule_is_deviated_from_once_per_series",
            ),
            models.UniqueConstraint(
                fields=["visit", "rule"],
                condition=Q(series__isnull=True, state__in=["open", "acknowledged"]),
                name="a_visit_rule_is_deviated_from_once_per_visit",
            ),
            models.CheckConstraint(
                condition=~Q(state="waived") | Q(waiver__isnull=False, closed_by__isnull=False),
                name="a_waiver_says_who_and_how_far",
            ),
        ]
        indexes = [
            models.Index(fields=["opened_at"], condition=Q(state="waived"), name="deviation_waived"),
            models.Index(fields=["trial", "state", "-opened_at"], name="deviation_by_state"),
            models.Index(fields=["site", "state"], name="deviation_by_site"),
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.label} ({self.state})"

    @property
    def is_closed(self) -> bool:
        return not DEVIATION_TRANSITIONS[self.state]


class QueryState(models.TextChoices):
    OPEN = "open", "open"
    ANSWERED = "answered", "answered"
    CLOSED = "closed", "closed"


QUERY_TRANSITIONS: dict[str, frozenset[str]] = {
    "open": frozenset({"answered", "closed"}),
    "answered": frozenset({"open", "closed"}),
    "closed": frozenset(),
}


class Query(models.Model):
    """A question to a site, raised by a rule (`raised_by` null) or a person."""

    State = QueryState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="queries")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="queries")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, null=True, related_name="queries")
    visit = models.ForeignKey(Visit, on_delete=models.PROTECT, null=True, related_name="queries")
    series = models.ForeignKey(Series, on_delete=models.PROTECT, null=True, related_name="queries")
    deviation = models.ForeignKey(Deviation, on_delete=models.PROTECT, null=True, related_name="queries")
    title = models.CharField(max_length=300)
    text = models.TextField(max_length=4000)
    is_rescan_request = models.BooleanField(default=False)
    raised_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="queries_raised"
    )
    state = models.CharField(max_length=10, choices=QueryState.choices, default=QueryState.OPEN)
    closing_reason = models.CharField(max_length=1000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "queries"
        indexes = [models.Index(fields=["site", "state"], name="query_by_site")]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.title


class QueryMessage(models.Model):
    """One answer or remark in a query."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="query_messages")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="query_messages")
    query = models.ForeignKey(Query, on_delete=models.PROTECT, related_name="messages")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="query_messages"
    )
    text = models.TextField(max_length=4000)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["created_at"]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.text[:60]
