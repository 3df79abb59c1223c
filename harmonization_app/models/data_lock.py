"""Data lock: freeze, lock, manifest, signature."""

import pgtrigger
from django.db import models

from hub.core.ids import uuid7
from hub.core.models import ElectronicSignature
from sites_app.models import Trial
from sites_app.models.scoping import ScopedManager


class DataLockState(models.TextChoices):
    OPEN = "open", "open"
    FROZEN = "frozen", "frozen"
    LOCKED = "locked", "locked"


DATA_LOCK_TRANSITIONS: dict[str, frozenset[str]] = {
    "open": frozenset({"frozen"}),
    "frozen": frozenset({"open", "locked"}),
    "locked": frozenset(),
}


class DataLock(models.Model):
    """The lock of a trial's data. `manifest_digest` names a blob with the digest of everything locked."""

    State = DataLockState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.OneToOneField(Trial, on_delete=models.PROTECT, related_name="data_lock")
    state = models.CharField(max_length=6, choices=DataLockState.choices, default=DataLockState.OPEN)
    checklist = models.JSONField(default=list)
    manifest_digest = models.CharField(max_length=64, blank=True)
    signature = models.ForeignKey(
        ElectronicSignature, on_delete=models.PROTECT, null=True, related_name="data_locks"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    frozen_at = models.DateTimeField(null=True)
    locked_at = models.DateTimeField(null=True)

    objects = ScopedManager(trial_wide=True, site_path=None)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(state="locked")
                | models.Q(signature__isnull=False) & ~models.Q(manifest_digest=""),
                name="a_locked_trial_has_a_manifest_and_a_signature",
            )
        ]
        triggers = [
            pgtrigger.Trigger(
                name="a_data_lock_is_final",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func="""
                    IF OLD.state = 'locked' THEN
                        RAISE EXCEPTION 'hub: A data lock is final. It cannot be changed or taken back.';
                    END IF;
                    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="a_data_lock_is_signed_over_its_manifest",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update,
                func="""
                    IF NEW.state = 'locked' AND (TG_OP = 'INSERT' OR OLD.state <> 'frozen' OR NOT EXISTS (
                        SELECT 1 FROM core_electronic_signature
                        WHERE id = NEW.signature_id AND object_id = NEW.id::text
                            AND object_digest = NEW.manifest_digest)) THEN
                        RAISE EXCEPTION
                            'hub: Data are locked after a freeze, by a signature over the manifest of this lock.';
                    END IF;
                    RETURN NEW;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.trial} {self.state}"
