"""Who may do what to protocols, deviations and queries.

The site says what happened, data management decides what it means: a coordinator acknowledges and answers for
the own site, a monitor asks and closes queries, and only data management decides on a deviation. Roles that read
(sponsor, statistician, auditor) change nothing.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hub.core.errors import NotAllowed
from sites_app.models import Membership, Role
from sites_app.permissions import roles_in

DATA_MANAGEMENT = frozenset({Role.DATA_MANAGER, Role.TRIAL_ADMINISTRATOR})
VERSION_DRAFTERS = DATA_MANAGEMENT
VERSION_LOCKERS = frozenset({Role.TRIAL_ADMINISTRATOR})
DEVIATION_ACKNOWLEDGERS = frozenset({Role.SITE_COORDINATOR, Role.MONITOR}) | DATA_MANAGEMENT
DEVIATION_DECIDERS = DATA_MANAGEMENT
QUERY_RAISERS = frozenset({Role.MONITOR, Role.IMAGING_REVIEWER}) | DATA_MANAGEMENT
# Data management may enter an answer that reached it outside the hub; the author is recorded.
QUERY_ANSWERERS = frozenset({Role.SITE_COORDINATOR}) | DATA_MANAGEMENT
QUERY_CLOSERS = QUERY_RAISERS
MONITORING_REVIEWERS = frozenset({Role.MONITOR, Role.IMAGING_REVIEWER}) | DATA_MANAGEMENT
RECHECKERS = DATA_MANAGEMENT
# A sponsor sees what sites did, not who did it.
BLIND_TO_STAFF = frozenset({Role.SPONSOR})


def trial_wide_roles(user: Any, trial_id: UUID) -> frozenset[str]:
    """Return the user's roles for the whole trial; a role limited to one site decides nothing for the others."""
    if not user.is_authenticated or not user.is_active:
        return frozenset()
    if user.is_superuser:
        return frozenset({Role.TRIAL_ADMINISTRATOR})
    rows = Membership.objects.filter(user=user, trial_id=trial_id, site=None, is_active=True)
    return frozenset(rows.values_list("role", flat=True))


def require_trial_wide_role(user: Any, allowed: frozenset[str], trial_id: UUID, act: str) -> None:
    """Raise NotAllowed unless the user has one of the roles for the whole trial."""
    if not trial_wide_roles(user, trial_id) & allowed:
        who = ", ".join(sorted(Role(role).label for role in allowed))
        raise NotAllowed(
            f"Your role does not allow you to {act}. It is allowed to, for the whole trial: {who}."
        )


def can_draft_versions(user: Any, trial_id: UUID) -> bool:
    return bool(trial_wide_roles(user, trial_id) & VERSION_DRAFTERS)


def can_lock_versions(user: Any, trial_id: UUID) -> bool:
    return bool(trial_wide_roles(user, trial_id) & VERSION_LOCKERS)


def can_acknowledge(user: Any, deviation: Any) -> bool:
    return bool(roles_in(user, deviation.trial_id, deviation.site_id) & DEVIATION_ACKNOWLEDGERS)


def can_decide(user: Any, deviation: Any) -> bool:
    """Whether the user may waive, resolve or reject the deviation."""
    return bool(roles_in(user, deviation.trial_id, deviation.site_id) & DEVIATION_DECIDERS)


def can_raise_query(user: Any, trial_id: UUID, site_id: UUID) -> bool:
    return bool(roles_in(user, trial_id, site_id) & QUERY_RAISERS)


def can_answer_query(user: Any, query: Any) -> bool:
    return bool(roles_in(user, query.trial_id, query.site_id) & QUERY_ANSWERERS)


def can_close_query(user: Any, query: Any) -> bool:
    return bool(roles_in(user, query.trial_id, query.site_id) & QUERY_CLOSERS)


def can_review_monitoring(user: Any, row: Any) -> bool:
    return bool(roles_in(user, row.trial_id, row.site_id) & MONITORING_REVIEWERS)


def sees_staff_names(user: Any, trial_id: UUID) -> bool:
    """Whether the user may see who at a site wrote something: one who is only a sponsor may not."""
    return bool(roles_in(user, trial_id) - BLIND_TO_STAFF)
