"""Which scopes (trials) and subscopes (sites) a user reaches; told by the app that knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q


@dataclass(frozen=True)
class Reach:
    """What a user reaches: whole scopes, single subscopes, the audit of scopes, scopes to administer."""

    whole: frozenset[UUID] = frozenset()
    parts: frozenset[tuple[UUID, UUID]] = frozenset()
    audited: frozenset[UUID] = frozenset()
    administered: frozenset[UUID] = frozenset()


_reach: list[Callable[[Any], Reach]] = []


def register_reach(function: Callable[[Any], Reach]) -> None:
    """Let `function(user)` say what a user reaches. Register in AppConfig.ready()."""
    _reach[:] = [function]


def _reach_of(user: Any) -> Reach:
    if not user.is_authenticated or not user.is_active or not _reach:
        return Reach()
    return _reach[0](user)


def reachable(user: Any) -> Q:
    """Return the condition on `scope` and `subscope` that limits rows of the core to the user's reach."""
    if user.is_active and user.is_superuser:
        return Q()
    reach = _reach_of(user)
    condition = Q(scope__in=reach.whole)
    for scope, subscope in reach.parts:
        condition |= Q(scope=scope, subscope=subscope)
    return condition


def reads_audit(user: Any) -> Q:
    """Return the condition on `scope` for audit events and signatures that the user may read."""
    return Q() if user.is_active and user.is_superuser else Q(scope__in=_reach_of(user).audited)


def may_operate(user: Any, scope: UUID | None) -> bool:
    """Whether the user administers `scope`."""
    return bool(user.is_superuser) or scope in _reach_of(user).administered
