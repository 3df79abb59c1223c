"""Who may do what with features, plans, runs and the data lock."""

from __future__ import annotations

from typing import Any

from hub.core.errors import NotAllowed
from sites_app.models import Membership, Role, Trial
from sites_app.permissions import require_role

ANALYSTS = frozenset({Role.STATISTICIAN, Role.TRIAL_ADMINISTRATOR})
LOCKERS = frozenset({Role.TRIAL_ADMINISTRATOR})
READERS = frozenset(
    {
        Role.STATISTICIAN,
        Role.TRIAL_ADMINISTRATOR,
        Role.AUDITOR,
        Role.SPONSOR,
        Role.DATA_MANAGER,
    }
)


def readable(model: Any, user: Any) -> Any:
    """Return the rows of a trial-wide model in the trials whose harmonization the user's roles read."""
    rows = model.objects.visible_to(user)
    if not user.is_authenticated or user.is_superuser:
        return rows
    trials = Membership.objects.filter(user=user, site=None, role__in=READERS, is_active=True)
    return rows.filter(trial_id__in=trials.values("trial_id"))


def require_analyst(user: Any, trial: Trial, act: str) -> None:
    require_role(user, ANALYSTS, trial.pk, None, act)


def require_locker(user: Any, trial: Trial, act: str) -> None:
    require_role(user, LOCKERS, trial.pk, None, act)


def administers_algorithms(user: Any) -> bool:
    """Algorithm versions belong to the installation: any trial administrator verifies and locks them."""
    if not user.is_active or not user.is_authenticated:
        return False
    return (
        bool(user.is_superuser)
        or Membership.objects.filter(user=user, role=Role.TRIAL_ADMINISTRATOR, is_active=True).exists()
    )


def verifies_algorithms(user: Any) -> bool:
    return (
        administers_algorithms(user)
        or Membership.objects.filter(user=user, role=Role.STATISTICIAN, is_active=True).exists()
    )


def require_algorithm_administrator(user: Any, act: str) -> None:
    if not administers_algorithms(user):
        raise NotAllowed(f"Your role does not allow you to {act}. It is allowed to: trial administrator.")
