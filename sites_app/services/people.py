"""Trial configuration by API: one audited create and update for each noun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from hub.core.audit.services import record
from hub.core.errors import Conflict
from sites_app.models import LockState, Membership, Trial
from sites_app.permissions import ADMINISTRATORS, require_role


def save_configuration(
    *,
    actor: Any,
    serializer: Any,
    trial_id: UUID,
    site_id: UUID | None,
    noun: str,
    allowed: frozenset[str],
) -> Any:
    """Save a validated serializer of a trial's configuration.

    The actor needs one of the roles `allowed` in the trial, and at the row's site where it has one.

    Raises NotAllowed, Conflict where the trial is locked.
    """
    require_role(actor, allowed, trial_id, site_id, f"change {noun} of this trial")
    with transaction.atomic():
        require_unlocked(trial_id)
        instance = serializer.instance
        changed = serializer.validated_data
        old = {key: str(getattr(instance, key)) for key in changed} if instance is not None else {}
        row = serializer.save()
        record(
            actor=actor,
            action=f"{row._meta.model_name}.{'updated' if instance is not None else 'created'}",
            obj=row,
            scope=trial_id,
            old=old,
            new={key: str(value) for key, value in changed.items()},
        )
    return row


def create_trial(*, actor: Any, values: Mapping[str, Any]) -> Trial:
    """Create a trial; only the installation's administrator may (checked by the view's `superuser` rule)."""
    with transaction.atomic():
        trial = Trial.objects.create(**values)
        record(actor=actor, action="trial.created", obj=trial, new={"code": trial.code, "title": trial.title})
    return trial


def end_membership(*, actor: Any, membership: Membership) -> Membership:
    """Deactivate a membership; the row stays as the record of who had which role. Raises NotAllowed."""
    require_role(actor, ADMINISTRATORS, membership.trial_id, None, "end memberships")
    with transaction.atomic():
        require_unlocked(membership.trial_id)
        membership.is_active = False
        membership.save(update_fields=["is_active"])
        record(
            actor=actor,
            action="membership.ended",
            obj=membership,
            old={"active": True},
            new={"active": False},
        )
    return membership


def require_unlocked(trial_id: UUID) -> None:
    """Hold the trial's row for the rest of the transaction. Raises Conflict where its data are locked."""
    if Trial.objects.select_for_update(no_key=True).get(pk=trial_id).lock_state == LockState.LOCKED:
        raise Conflict("The data of this trial are locked. Nothing in it can be changed.")
