"""De-identification profiles: versioned, immutable."""

from django.db import models

from hub.core.guards import never_changes
from hub.core.ids import uuid7
from sites_app.models.scoping import ScopedManager
from sites_app.models.trial import Trial


class DeidentificationProfile(models.Model):
    """One version of a trial's de-identification profile; the newest is the one in use."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="deidentification_profiles")
    version = models.PositiveIntegerField()
    document = models.JSONField()
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager(site_path=None)

    class Meta:
        ordering = ["-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["trial", "version"], name="a_deidentification_profile_version_is_unique"
            )
        ]
        triggers = [never_changes("profiles_never_change")]

    def __str__(self) -> str:
        return f"de-identification profile v{self.version}"
