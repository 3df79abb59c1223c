"""What a user's memberships reach, for the rows of the core (jobs, audit events, signatures)."""

from __future__ import annotations

from typing import Any

from hub.core.scopes import Reach
from sites_app.models import Membership, Role

AUDIT_READERS = frozenset({Role.AUDITOR, Role.TRIAL_ADMINISTRATOR})


def reach_of(user: Any) -> Reach:
    rows = list(
        Membership.objects.filter(user=user, is_active=True).values_list("trial_id", "site_id", "role")
    )
    return Reach(
        whole=frozenset(trial for trial, site, _ in rows if site is None),
        parts=frozenset((trial, site) for trial, site, _ in rows if site is not None),
        audited=frozenset(trial for trial, site, role in rows if site is None and role in AUDIT_READERS),
        administered=frozenset(trial for trial, _, role in rows if role == Role.TRIAL_ADMINISTRATOR),
    )
