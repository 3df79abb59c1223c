"""Who may do what. `visible_to` says what exists for a user; these functions say what may be done to it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hub.core.errors import NotAllowed
from sites_app.models import Membership, Role

# Roles that read everything of their scope and change nothing.
READ_ONLY = frozenset({Role.SPONSOR, Role.AUDITOR})
UPLOADERS = frozenset({Role.SITE_COORDINATOR, Role.DATA_MANAGER, Role.TRIAL_ADMINISTRATOR})
ADMINISTRATORS = frozenset({Role.TRIAL_ADMINISTRATOR})
# Roles that may be limited to one site; every other one is for the whole trial.
SITE_ROLES = frozenset({Role.SITE_COORDINATOR, Role.MONITOR, Role.DATA_MANAGER, Role.IMAGING_REVIEWER})
# Roles that may not know a subject's treatment arm.
BLINDED = frozenset({Role.SPONSOR, Role.SITE_COORDINATOR, Role.IMAGING_REVIEWER, Role.MONITOR})


def roles_in(user: Any, trial_id: UUID, site_id: UUID | None = None) -> frozenset[str]:
    """Return the user's roles in a trial, and at a site of it where one is named.

    An installation's administrator is a trial administrator everywhere.
    """
    if not user.is_authenticated or not user.is_active:
        return frozenset()
    if user.is_superuser:
        return frozenset({Role.TRIAL_ADMINISTRATOR})
    rows = Membership.objects.filter(user=user, trial_id=trial_id, is_active=True)
    return frozenset(
        role
        for role, site in rows.values_list("role", "site_id")
        if site is None or site_id is None or site == site_id
    )


def roles_anywhere(user: Any) -> frozenset[str]:
    """Return the roles that the user has in any trial, for pages of the whole hub."""
    if not user.is_authenticated or not user.is_active:
        return frozenset()
    if user.is_superuser:
        return frozenset({Role.TRIAL_ADMINISTRATOR})
    return frozenset(Membership.objects.filter(user=user, is_active=True).values_list("role", flat=True))


def require_role(user: Any, allowed: frozenset[str], trial_id: UUID, site_id: UUID | None, act: str) -> None:
    """Raise NotAllowed, naming the act and who may do it, unless the user has one of the roles."""
    if not roles_in(user, trial_id, site_id) & allowed:
        who = ", ".join(sorted(Role(role).label for role in allowed))
        raise NotAllowed(f"Your role does not allow you to {act}. It is allowed to: {who}.")


def can_submit(user: Any, site: Any) -> bool:
    return bool(roles_in(user, site.trial_id, site.pk) & UPLOADERS)


def can_administer(user: Any, trial_id: UUID) -> bool:
    return bool(roles_in(user, trial_id) & ADMINISTRATORS)


def sees_arm(user: Any, trial_id: UUID) -> bool:
    """Whether the user may see treatment arms: everybody who is only in blinded roles may not."""
    return bool(roles_in(user, trial_id) - BLINDED)


def sees_original_names(user: Any, trial_id: UUID, site_id: UUID) -> bool:
    """File names as received may identify a person: only those who handle the site's files see them."""
    return bool(roles_in(user, trial_id, site_id) & UPLOADERS)
