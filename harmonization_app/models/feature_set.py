"""Feature sets: immutable tables of imaging-derived measurements."""

from django.conf import settings
from django.db import models

from hub.core.guards import never_changes
from hub.core.ids import uuid7
from sites_app.models import Trial
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class FeatureSet(models.Model):
    """Rows are image visits, columns are features. The table itself is a blob under `data_digest`: CSV, or for
    the origin `matrix` an NPY file.

    `columns` lists {name, unit, pool}; `rows` lists {subject, visit, scanner, batch} in the table's order.
    """

    class Origin(models.TextChoices):
        CSV = "csv", "imported from CSV"
        QC_METRICS = "qc_metrics", "built from QC metrics"
        MATRIX = "matrix", "imported as a matrix"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="feature_sets")
    name = models.CharField(max_length=200)
    origin = models.CharField(max_length=12, choices=Origin.choices)
    provenance = models.JSONField(default=dict)
    columns = models.JSONField()
    covariates = models.JSONField(default=list)
    rows = models.JSONField()
    row_count = models.PositiveIntegerField()
    column_count = models.PositiveIntegerField()
    missing_count = models.PositiveIntegerField(default=0)
    data_digest = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="feature_sets"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager(trial_wide=True, site_path=None)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "digest"], name="a_feature_set_is_stored_once_per_trial")
        ]
        triggers = [refused_when_trial_locked(), never_changes("feature_sets_never_change")]

    def __str__(self) -> str:
        return self.name
