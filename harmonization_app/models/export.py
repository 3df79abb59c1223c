"""Export packages: everything of a trial with the proof that it is unchanged."""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from sites_app.models import Trial
from sites_app.models.scoping import ScopedManager


class ExportState(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "succeeded"
    FAILED = "failed", "failed"


EXPORT_TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "failed"}),
    "running": frozenset({"running", "succeeded", "failed"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
}


class Export(models.Model):
    """One package of a trial. `locked` says whether the data were locked when it was made.

    The package is a file of the storage area "exports" named by the row's id; `package_sha256` and `size` are its own.
    """

    State = ExportState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="exports")
    include_images = models.BooleanField(default=False)
    locked = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=ExportState.choices, default=ExportState.QUEUED)
    reason = models.CharField(max_length=2000, blank=True)
    job_id = models.UUIDField(null=True)
    manifest_digest = models.CharField(max_length=64, blank=True)
    package_sha256 = models.CharField(max_length=64, blank=True)
    size = models.BigIntegerField(default=0)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="exports")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = ScopedManager(trial_wide=True, site_path=None)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state="succeeded") | ~Q(package_sha256="") & ~Q(manifest_digest=""),
                name="a_finished_export_has_a_package_and_a_manifest",
            )
        ]
        triggers = [
            pgtrigger.Trigger(
                name="finished_exports_never_change",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func="""
                    IF OLD.state IN ('succeeded', 'failed') OR TG_OP = 'DELETE' THEN
                        RAISE EXCEPTION 'hub: A finished export is immutable. Make a new export instead.';
                    END IF;
                    RETURN NEW;
                """,
            )
        ]

    def __str__(self) -> str:
        return f"export of {self.trial} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def is_final(self) -> bool:
        return not EXPORT_TRANSITIONS[self.state]
