"""Acquisition protocols and QC profiles: versioned, draft then locked then superseded."""

from django.db import models
from django.db.models import Q

from hub.core.guards import locked_rows_never_change
from hub.core.ids import uuid7
from hub.core.models import ElectronicSignature
from sites_app.models import Trial
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class VersionState(models.TextChoices):
    DRAFT = "draft", "draft"
    LOCKED = "locked", "locked"
    SUPERSEDED = "superseded", "superseded"


VERSION_TRANSITIONS: dict[str, frozenset[str]] = {
    "draft": frozenset({"locked"}),
    "locked": frozenset({"superseded"}),
    "superseded": frozenset(),
}


class LockableVersion(models.Model):
    """A document of a trial with a version, a digest, and a signature once it is locked."""

    State = VersionState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="%(class)ss")
    version = models.PositiveIntegerField()
    title = models.CharField(max_length=300)
    document = models.JSONField()
    digest = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=VersionState.choices, default=VersionState.DRAFT)
    amendment_reason = models.CharField(max_length=1000, blank=True)
    signature = models.ForeignKey(
        ElectronicSignature, on_delete=models.PROTECT, null=True, related_name="%(class)ss"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    locked_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
        ordering = ["-version"]

    def __str__(self) -> str:
        return f"{self.title} v{self.version}"


def _version_constraints(noun: str) -> list[models.BaseConstraint]:
    return [
        models.UniqueConstraint(fields=["trial", "version"], name=f"a_{noun}_version_is_unique_in_its_trial"),
        models.UniqueConstraint(
            fields=["trial"], condition=Q(state="locked"), name=f"one_{noun}_is_in_force_per_trial"
        ),
        models.UniqueConstraint(
            fields=["trial"], condition=Q(state="draft"), name=f"one_{noun}_is_being_drafted_per_trial"
        ),
        models.CheckConstraint(
            condition=Q(state="draft") | Q(signature__isnull=False, locked_at__isnull=False),
            name=f"a_locked_{noun}_is_signed",
        ),
    ]


_LOCKED_COLUMNS = ("trial_id", "version", "title", "document", "digest", "signature_id", "locked_at")


class Protocol(LockableVersion):
    """A version of the trial's acquisition protocol (`qc_app.protocol.schema`)."""

    objects = ScopedManager(site_path=None)

    class Meta(LockableVersion.Meta):
        constraints = _version_constraints("protocol")
        triggers = [refused_when_trial_locked(), locked_rows_never_change(columns=_LOCKED_COLUMNS)]


class QCProfile(LockableVersion):
    """A version of the trial's QC profile (`qc_app.metrics.profile`)."""

    objects = ScopedManager(site_path=None)

    class Meta(LockableVersion.Meta):
        constraints = _version_constraints("qc_profile")
        triggers = [refused_when_trial_locked(), locked_rows_never_change(columns=_LOCKED_COLUMNS)]
