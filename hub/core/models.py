"""Every model of the core app, kept beside what it serves."""

from hub.core.accounts.models import User
from hub.core.api.idempotency_models import IdempotencyRecord
from hub.core.audit.models import AuditEvent, AuditHead
from hub.core.jobs.models import Job
from hub.core.signatures.models import ElectronicSignature

__all__ = ["AuditEvent", "AuditHead", "ElectronicSignature", "IdempotencyRecord", "Job", "User"]
