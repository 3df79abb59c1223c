"""Versioned documents of a trial: draft, lock with a signature, amend. Protocols and QC profiles share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from hub.core.signatures.services import prove_identity, sign
from qc_app.models import Protocol, QCProfile, VersionState
from qc_app.permissions import VERSION_DRAFTERS, VERSION_LOCKERS, require_trial_wide_role
from sites_app.models import LockState, Trial

Version = TypeVar("Version", Protocol, QCProfile)


@dataclass(frozen=True)
class Parsed:
    """A valid document in the form that is stored, with its digest and its title for people."""

    document: Mapping[str, Any]
    digest: str
    title: str


@dataclass(frozen=True)
class VersionKind(Generic[Version]):
    """One kind of versioned document: its model, its name in sentences, how it is parsed and checked at lock.

    `parse(document, trial_id)` and `check_lock(row)` raise a HubError with a JSON pointer per fault;
    `locked(row)` runs inside the transaction that locked it.
    """

    model: type[Version]
    noun: str
    parse: Callable[[Any, UUID], Parsed]
    check_lock: Callable[[Version], None]
    locked: Callable[[Version], None]


def create_draft(
    kind: VersionKind[Version], *, actor: Any, trial: Trial, document: Any, title: str = ""
) -> Version:
    """Create the first draft of a trial, or the next one after a locked version.

    Raises NotAllowed, the document's faults, Conflict where a draft exists or the trial is locked.
    """
    require_trial_wide_role(actor, VERSION_DRAFTERS, trial.pk, f"draft a {kind.noun}")
    return save_new(kind, actor=actor, trial=trial, document=document, title=title, reason="")


def save_new(
    kind: VersionKind[Version], *, actor: Any, trial: Trial, document: Any, title: str, reason: str
) -> Version:
    """Create a draft without asking for a role; the caller has done so."""
    _require_unlocked(trial.pk)
    parsed = kind.parse(document, trial.pk)
    newest = kind.model.objects.filter(trial=trial).aggregate(newest=Max("version"))["newest"]
    try:
        with transaction.atomic():
            row = kind.model.objects.create(
                trial=trial,
                version=(newest or 0) + 1,
                title=title.strip()[:300] or parsed.title[:300],
                document=dict(parsed.document),
                digest=parsed.digest,
                amendment_reason=reason,
            )
            record(
                actor=actor,
                action=f"{row._meta.model_name}.drafted",
                obj=row,
                new={"version": row.version, "title": row.title, "digest": row.digest},
                reason=reason,
            )
    except IntegrityError as error:
        raise Conflict(f"This trial has a draft {kind.noun} already. Change or lock that one.") from error
    return row


def update_draft(
    kind: VersionKind[Version], *, actor: Any, row: Version, document: Any = None, title: str | None = None
) -> Version:
    """Change a draft's document or title. Raises NotAllowed, the document's faults, Conflict where it is locked."""
    require_trial_wide_role(actor, VERSION_DRAFTERS, row.trial_id, f"change a draft {kind.noun}")
    return save_changes(kind, actor=actor, row=row, document=document, title=title)


def save_changes(
    kind: VersionKind[Version], *, actor: Any, row: Version, document: Any = None, title: str | None = None
) -> Version:
    """Change a draft without asking for a role; the caller has done so."""
    parsed = kind.parse(document, row.trial_id) if document is not None else None
    with transaction.atomic():
        current = _get_draft(kind, row)
        old = {"title": current.title, "digest": current.digest}
        if parsed is not None:
            current.document, current.digest = dict(parsed.document), parsed.digest
        if title is not None and title.strip():
            current.title = title.strip()[:300]
        current.save(update_fields=["document", "digest", "title", "updated_at"])
        record(
            actor=actor,
            action=f"{current._meta.model_name}.draft_changed",
            obj=current,
            old=old,
            new={"title": current.title, "digest": current.digest},
        )
    return current


def discard_draft(kind: VersionKind[Version], *, actor: Any, row: Version) -> None:
    """Delete a draft; a locked version can never be deleted. Raises NotAllowed, Conflict."""
    require_trial_wide_role(actor, VERSION_DRAFTERS, row.trial_id, f"discard a draft {kind.noun}")
    with transaction.atomic():
        current = _get_draft(kind, row)
        record(
            actor=actor,
            action=f"{current._meta.model_name}.draft_discarded",
            obj=current,
            old={"version": current.version, "title": current.title, "digest": current.digest},
        )
        current.delete()


def lock(
    kind: VersionKind[Version], *, actor: Any, row: Version, password: str, meaning: str, otp: str = ""
) -> Version:
    """Lock a draft with a signature; it comes into force and supersedes the version before.

    Raises NotAllowed, Conflict where it is no draft, SignatureRefused, InvalidInput without a meaning.
    """
    require_trial_wide_role(actor, VERSION_LOCKERS, row.trial_id, f"lock a {kind.noun}")
    if row.state != VersionState.DRAFT:
        raise Conflict(f"This version of the {kind.noun} is {row.state}; only a draft can be locked.")
    if not meaning.strip():
        raise InvalidInput(
            "A signature needs its meaning in words, for example “I approve this protocol”.",
            errors=[{"field": "meaning", "message": "Say what the signature means."}],
        )
    identity = prove_identity(actor=actor, password=password, otp=otp)
    with transaction.atomic():
        current = _get_draft(kind, row)
        if current.digest != row.digest:
            raise Conflict(f"The draft {kind.noun} was changed meanwhile. Read it again before you sign it.")
        if kind.parse(current.document, current.trial_id).digest != current.digest:
            raise Conflict(
                f"The draft {kind.noun} does not agree with its digest. Save it again, then lock it."
            )
        kind.check_lock(current)
        former = kind.model.objects.select_for_update(no_key=True, of=("self",)).filter(
            trial=current.trial_id, state=VersionState.LOCKED
        )
        superseded = former.first()
        former.update(state=VersionState.SUPERSEDED)
        current.signature = sign(
            identity=identity, meaning=meaning, obj=current, object_digest=current.digest
        )
        current.state, current.locked_at = VersionState.LOCKED, timezone.now()
        current.save(update_fields=["state", "locked_at", "signature", "updated_at"])
        record(
            actor=actor,
            action=f"{current._meta.model_name}.locked",
            obj=current,
            old={"state": "draft", "in_force": superseded.version if superseded else None},
            new={"state": "locked", "version": current.version, "digest": current.digest},
            reason=meaning,
        )
        kind.locked(current)
    return current


def amend(kind: VersionKind[Version], *, actor: Any, row: Version, reason: str) -> Version:
    """Start a new draft from a locked version, with the reason for the change.

    Raises NotAllowed, InvalidInput without a reason, Conflict where the version is not in force or a draft exists.
    """
    require_trial_wide_role(actor, VERSION_DRAFTERS, row.trial_id, f"amend a {kind.noun}")
    if not reason.strip():
        raise InvalidInput(
            f"Give the reason for amending the {kind.noun}.",
            errors=[{"field": "reason", "message": "Give the reason for the amendment."}],
        )
    if row.state != VersionState.LOCKED:
        raise Conflict(f"Only the {kind.noun} in force can be amended; this version is {row.state}.")
    return save_new(
        kind,
        actor=actor,
        trial=row.trial,
        document=row.document,
        title=row.title,
        reason=reason.strip()[:1000],
    )


def in_force(kind: VersionKind[Version], trial_id: UUID) -> Version | None:
    """Return the locked version of a trial, or None."""
    return kind.model.objects.filter(trial_id=trial_id, state=VersionState.LOCKED).first()


def draft_of(kind: VersionKind[Version], trial_id: UUID) -> Version | None:
    """Return the draft of a trial, or None."""
    return kind.model.objects.filter(trial_id=trial_id, state=VersionState.DRAFT).first()


def _get_draft(kind: VersionKind[Version], row: Version) -> Version:
    _require_unlocked(row.trial_id)
    current = kind.model.objects.select_for_update(no_key=True, of=("self",)).get(pk=row.pk)
    if current.state != VersionState.DRAFT:
        raise Conflict(
            f"Version {current.version} of the {kind.noun} is {current.state} and cannot be changed. Amend it instead."
        )
    return current


def _require_unlocked(trial_id: UUID) -> None:
    if Trial.objects.filter(pk=trial_id, lock_state=LockState.LOCKED).exists():
        raise Conflict("The data of this trial are locked. Nothing in it can be changed.")
