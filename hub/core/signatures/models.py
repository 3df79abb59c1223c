"""Electronic signatures: who, when, meaning, and the digest of what was signed (21 CFR 11.50, 11.70)."""

import pgtrigger
from django.conf import settings
from django.db import models

from hub.core.ids import uuid7


class ElectronicSignature(models.Model):
    """One signature, made after the signer gave the password again."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    scope = models.UUIDField(null=True, db_index=True)
    signer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="signatures")
    printed_name = models.CharField(max_length=200)
    meaning = models.CharField(max_length=300)
    signed_at = models.DateTimeField()
    object_type = models.CharField(max_length=80)
    object_id = models.CharField(max_length=80)
    object_digest = models.CharField(max_length=64)
    second_factor = models.BooleanField(default=False)

    class Meta:
        db_table = "core_electronic_signature"
        ordering = ["-signed_at"]
        indexes = [models.Index(fields=["object_type", "object_id"], name="signature_by_object")]
        triggers = [
            pgtrigger.Protect(
                name="signatures_never_change",
                operation=pgtrigger.Update | pgtrigger.Delete,
            )
        ]

    def __str__(self) -> str:
        return f"{self.printed_name}: {self.meaning}"
