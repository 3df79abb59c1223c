"""Who takes part in a trial: one audited act to give a role; `people.end_membership` takes it back."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction

from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from hub.core.models import User
from sites_app.models import Membership, Role, Site, Trial
from sites_app.permissions import ADMINISTRATORS, require_role
from sites_app.services.people import require_unlocked

# These act for one site or for all; every other role is for the whole trial, a coordinator always for a site.
SITE_ROLES = frozenset({Role.SITE_COORDINATOR, Role.MONITOR, Role.DATA_MANAGER, Role.IMAGING_REVIEWER})


def add_membership(*, actor: Any, trial: Trial, username: str, role: str, site_code: str = "") -> Membership:
    """Give an account a role in the trial, at one site or (without `site_code`) for all of it.

    A membership that was ended is given again. Raises NotAllowed, InvalidInput for an unknown account, role or
    site, Conflict where the person has the role already or the trial is locked.
    """
    require_role(actor, ADMINISTRATORS, trial.pk, None, "give roles in this trial")
    user = _user(username)
    site = _site(trial, role, site_code)
    try:
        with transaction.atomic():
            require_unlocked(trial.pk)
            row, created = Membership.objects.select_for_update(no_key=True).get_or_create(
                user=user, trial=trial, site=site, role=role
            )
            if not created and row.is_active:
                raise Conflict(f"{user} has this role already.")
            row.is_active = True
            row.save(update_fields=["is_active"])
            record(
                actor=actor,
                action="membership.created" if created else "membership.given_again",
                obj=row,
                new={"user": str(user.pk), "role": role, "site": str(site.pk) if site else None},
            )
    except IntegrityError as error:
        raise Conflict(f"The role of {user} was changed at the same moment. Try again.") from error
    return row


def _user(username: str) -> User:
    user = User.objects.filter(username=username.strip().replace("\x00", ""), is_active=True).first()
    if user is None:
        raise InvalidInput(
            "There is no active account of that user name. Accounts come with the trial file or from "
            "the installation's administrator.",
            errors=[{"field": "username", "message": "is no active account"}],
        )
    return user


def _site(trial: Trial, role: str, site_code: str) -> Site | None:
    if role not in Role.values:
        raise InvalidInput("Choose a role.", errors=[{"field": "role", "message": "is no role"}])
    if not site_code:
        if role == Role.SITE_COORDINATOR:
            message = "A site coordinator belongs to a site. Choose the site."
            raise InvalidInput(message, errors=[{"field": "site", "message": "is missing"}])
        return None
    if role not in SITE_ROLES:
        message = f"A {Role(role).label} acts for the whole trial. Leave the site empty."
        raise InvalidInput(message, errors=[{"field": "site", "message": "must be empty for this role"}])
    site = Site.objects.filter(trial=trial, code=site_code.replace("\x00", "")).first()
    if site is None:
        message = "The trial has no such site."
        raise InvalidInput(message, errors=[{"field": "site", "message": "is no site of this trial"}])
    return site
