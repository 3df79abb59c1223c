"""Versions of harmonization algorithms: registered, verified, locked, retired."""

import pgtrigger
from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from hub.core.models import ElectronicSignature


class AlgorithmVersionState(models.TextChoices):
    REGISTERED = "registered", "registered"
    VERIFIED = "verified", "verified"
    LOCKED = "locked", "locked"
    RETIRED = "retired", "retired"


ALGORITHM_TRANSITIONS: dict[str, frozenset[str]] = {
    "registered": frozenset({"verified"}),
    "verified": frozenset({"registered", "verified", "locked"}),
    "locked": frozenset({"retired"}),
    "retired": frozenset(),
}


class AlgorithmVersion(models.Model):
    """One algorithm at one version, with the digests of its code and of the numerical environment.

    Algorithms belong to the installation, not to a trial: everybody with an account sees them. Two administrators
    lock a version, each with a signature; `signatures_required` is 1 for versions locked before that was asked.
    """

    State = AlgorithmVersionState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    algorithm = models.CharField(max_length=60)
    version = models.CharField(max_length=30)
    title = models.CharField(max_length=200)
    code_digest = models.CharField(max_length=64)
    environment = models.JSONField(default=dict)
    environment_digest = models.CharField(max_length=64, blank=True)
    parameters_schema = models.JSONField(default=dict)
    verification = models.JSONField(null=True)
    state = models.CharField(
        max_length=10, choices=AlgorithmVersionState.choices, default=AlgorithmVersionState.REGISTERED
    )
    signature = models.ForeignKey(
        ElectronicSignature, on_delete=models.PROTECT, null=True, related_name="algorithm_versions"
    )
    second_signature = models.ForeignKey(
        ElectronicSignature, on_delete=models.PROTECT, null=True, related_name="second_algorithm_versions"
    )
    signatures_required = models.PositiveSmallIntegerField(default=2, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    verified_at = models.DateTimeField(null=True)
    locked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["algorithm", "-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["algorithm", "version", "code_digest"], name="an_algorithm_version_is_registered_once"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["locked", "retired"])
                | Q(signature__isnull=False, verification__isnull=False),
                name="a_locked_algorithm_version_is_verified_and_signed",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["locked", "retired"])
                | Q(signatures_required=1)
                | Q(second_signature__isnull=False),
                name="a_locked_algorithm_version_has_every_signature",
            ),
            models.CheckConstraint(
                condition=Q(signatures_required__in=[1, 2])
                & (Q(second_signature__isnull=True) | Q(signature__isnull=False)),
                name="an_algorithm_version_takes_one_or_two_signatures",
            ),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="locked_algorithms_never_change",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func="""
                    IF OLD.state IN ('locked', 'retired') AND (TG_OP = 'DELETE'
                        OR ROW(NEW.algorithm, NEW.version, NEW.code_digest, NEW.environment::text,
                               NEW.environment_digest, NEW.parameters_schema::text, NEW.verification::text,
                               NEW.signature_id, NEW.second_signature_id, NEW.signatures_required,
                               NEW.locked_at)
                           IS DISTINCT FROM
                           ROW(OLD.algorithm, OLD.version, OLD.code_digest, OLD.environment::text,
                               OLD.environment_digest, OLD.parameters_schema::text, OLD.verification::text,
                               OLD.signature_id, OLD.second_signature_id, OLD.signatures_required,
                               OLD.locked_at)
                        OR NEW.state NOT IN ('locked', 'retired')
                        OR OLD.state = 'retired' AND NEW.state <> 'retired') THEN
                        RAISE EXCEPTION 'hub: A locked algorithm version cannot be changed. Register a new one.';
                    END IF;
                    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="two_administrators_lock_an_algorithm",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update,
                func="""
                    IF TG_OP = 'INSERT' AND NEW.signatures_required <> 2
                        OR TG_OP = 'UPDATE' AND NEW.signatures_required <> OLD.signatures_required THEN
                        RAISE EXCEPTION 'hub: An algorithm version is locked by two signatures.';
                    END IF;
                    IF NEW.second_signature_id IS NOT NULL AND NOT EXISTS (
                        SELECT 1 FROM core_electronic_signature first, core_electronic_signature second
                        WHERE first.id = NEW.signature_id AND second.id = NEW.second_signature_id
                            AND first.signer_id <> second.signer_id
                            AND first.object_digest = second.object_digest
                            AND first.object_id = NEW.id::text AND second.object_id = NEW.id::text) THEN
                        RAISE EXCEPTION
                            'hub: Two different administrators sign the same content of an algorithm version.';
                    END IF;
                    RETURN NEW;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.algorithm} {self.version}"
