"""`visible_to(user)`: the only door to trial-scoped rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Q


@dataclass(frozen=True)
class ScopeLimits:
    """The lookups from a model to its trial's and its site's id.

    `site_path` None: anybody in the trial sees the row. `trial_wide`: only memberships for the whole trial
    see it (it shows more than one site).
    """

    trial_path: str = "trial_id"
    site_path: str | None = "site_id"
    trial_wide: bool = False


class ScopedQuerySet(models.QuerySet):
    """Rows with a trial and, where they belong to one, a site."""

    def visible_to(self, user: Any) -> ScopedQuerySet:
        """Return the rows that the user's memberships reach; nothing for an anonymous or inactive user."""
        if not getattr(user, "is_active", False) or not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self
        from sites_app.models.membership import Membership

        limits: ScopeLimits = getattr(self.model, "scope_limits")  # noqa: B009  (set by the manager)
        memberships = list(
            Membership.objects.filter(user=user, is_active=True).values_list("trial_id", "site_id")
        )
        whole = {trial for trial, site in memberships if site is None}
        condition = Q(**{f"{limits.trial_path}__in": whole})
        for trial, site in [] if limits.trial_wide else memberships:
            if site is not None and trial not in whole:
                narrowed = {limits.site_path: site} if limits.site_path else {}
                condition |= Q(**{limits.trial_path: trial}, **narrowed)
        return self.filter(condition)


class ScopedManager(models.Manager.from_queryset(ScopedQuerySet)):  # type: ignore[misc]
    """Manager of a scoped model, for example `objects = ScopedManager(site_path=None)`."""

    def __init__(self, **limits: Any) -> None:
        super().__init__()
        self._limits = ScopeLimits(**limits)

    def contribute_to_class(self, cls: Any, name: str) -> None:
        super().contribute_to_class(cls, name)
        cls.scope_limits = self._limits
