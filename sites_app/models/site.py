"""Sites, their scanners and each scanner's dated history."""

from django.db import models

from hub.core.ids import uuid7
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager
from sites_app.models.trial import Trial


class Site(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="sites")
    code = models.SlugField(max_length=40)
    name = models.CharField(max_length=200)
    country = models.CharField(max_length=80, blank=True)
    is_active = models.BooleanField(default=True)

    objects = ScopedManager(site_path="id")

    class Meta:
        ordering = ["code"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "code"], name="a_site_code_is_unique_in_its_trial")
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.code

    @property
    def site_id(self):  # type: ignore[no-untyped-def]
        """The site is its own subscope."""
        return self.pk


class Scanner(models.Model):
    """Serial-numbered equipment at a site; declared by the trial, or first seen in an image."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="scanners")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="scanners")
    manufacturer = models.CharField(max_length=120)
    model = models.CharField(max_length=120, blank=True)
    serial_number = models.CharField(max_length=120)
    modality = models.CharField(max_length=16, blank=True)
    field_strength_t = models.FloatField(null=True, blank=True)
    is_declared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["site__code", "manufacturer", "serial_number"]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "manufacturer", "serial_number"], name="a_scanner_is_known_once_at_its_site"
            )
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.manufacturer} {self.model} {self.serial_number}".strip()


class ScannerEpoch(models.Model):
    """A span of a scanner's life with one software version and hardware; the batch of harmonization."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="scanner_epochs")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="scanner_epochs")
    scanner = models.ForeignKey(Scanner, on_delete=models.PROTECT, related_name="epochs")
    number = models.PositiveSmallIntegerField(default=1)
    software_versions = models.CharField(max_length=300, blank=True)
    first_seen_on = models.DateField(null=True, blank=True)
    last_seen_on = models.DateField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["scanner", "number"]
        constraints = [
            models.UniqueConstraint(
                fields=["scanner", "software_versions"], name="a_scanner_epoch_is_one_software_version"
            ),
            models.UniqueConstraint(fields=["scanner", "number"], name="scanner_epochs_are_numbered"),
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.scanner} epoch {self.number}"
