"""Signing: the signer proves the password again, and the second factor where it is switched on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from axes.handlers.proxy import AxesProxyHandler
from django.contrib.auth.hashers import check_password
from django.contrib.auth.signals import user_login_failed
from django.utils import timezone

from hub.core.accounts.second_factor import has_second_factor, second_factor_matches
from hub.core.api.request_context import current_request
from hub.core.audit.services import record
from hub.core.errors import HubError, InvalidInput
from hub.core.signatures.models import ElectronicSignature


class SignatureRefused(HubError):
    code = "signature_refused"
    title = "The signature was refused"
    http_status = 403


@dataclass(frozen=True)
class ProvenIdentity:
    """A person who has just given the password again; made only by `prove_identity`."""

    actor: Any
    second_factor: bool


def prove_identity(*, actor: Any, password: str, otp: str = "") -> ProvenIdentity:
    """Check the actor's password (and one-time code where switched on) before anything is signed.

    Call it before the transaction of the act, so that a failed attempt is kept in audit and lockout.

    Raises SignatureRefused where either is wrong or the account is locked out.
    """
    request = current_request()
    credentials = {"username": actor.username}
    if request is not None and not AxesProxyHandler.is_allowed(request, credentials):
        raise SignatureRefused(
            "This account is locked after repeated failures. Wait 15 minutes or ask the administrator."
        )
    # The model's check_password may rehash and save: proving an identity must write nothing else.
    correct = bool(password) and check_password(password, actor.password)
    second_factor = has_second_factor(actor)
    if correct and second_factor:
        correct = second_factor_matches(actor, otp)
    if not correct:
        record(actor=actor, action="signature.refused", obj=actor)
        if request is not None:
            user_login_failed.send(sender=__name__, credentials=credentials, request=request)
        raise SignatureRefused(
            "The password (or one-time code) is not right. Enter the password of your own account to sign.",
            errors=[{"field": "password", "message": "The password or the one-time code is not right."}],
        )
    return ProvenIdentity(actor=actor, second_factor=second_factor)


def sign(
    *, identity: ProvenIdentity, meaning: str, obj: Any, object_digest: str, scope: UUID | None = None
) -> ElectronicSignature:
    """Sign `object_digest` of `obj`, inside the caller's transaction.

    Raises InvalidInput where the meaning is empty.
    """
    if not meaning.strip():
        raise InvalidInput("A signature needs its meaning in words, for example “I approve this protocol”.")
    signature = ElectronicSignature.objects.create(
        scope=scope or getattr(obj, "trial_id", None),
        signer=identity.actor,
        printed_name=str(identity.actor),
        meaning=meaning.strip(),
        signed_at=timezone.now(),
        object_type=obj._meta.label_lower,
        object_id=str(obj.pk),
        object_digest=object_digest,
        second_factor=identity.second_factor,
    )
    record(
        actor=identity.actor,
        action="signature.made",
        obj=obj,
        scope=scope,
        new={"meaning": signature.meaning, "digest": object_digest, "signature": str(signature.pk)},
    )
    return signature
