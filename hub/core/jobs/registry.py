"""The kinds of jobs. `@job` is the only way to declare background work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Ended = Callable[[dict[str, Any], str], None]


@dataclass(frozen=True)
class JobKind:
    """How one kind of job runs. Limits are seconds.

    `on_failure` and `on_cancel` are told the arguments and the reason, so that what the job was for does not wait for
    ever; without `on_cancel` it waits, for a sweeper that brings it back.
    """

    name: str
    queue: str
    function: Callable[..., None]
    soft_limit_s: int
    hard_limit_s: int
    max_attempts: int
    on_failure: Ended | None
    on_cancel: Ended | None


_kinds: dict[str, JobKind] = {}


def job(
    *,
    name: str,
    queue: str,
    soft_limit_s: int = 600,
    hard_limit_s: int = 660,
    max_attempts: int = 3,
    on_failure: Ended | None = None,
    on_cancel: Ended | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a function `f(context, **arguments)` as a kind of job.

    It must be idempotent: after a crash it runs again with the same arguments (primary keys only).
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        limits = (soft_limit_s, hard_limit_s, max_attempts)
        _kinds[name] = JobKind(name, queue, function, *limits, on_failure, on_cancel)
        return function

    return declare


def kind_named(name: str) -> JobKind:
    """Return the kind; raises KeyError for an unknown name."""
    return _kinds[name]


def kind_if_known(name: str) -> JobKind | None:
    """Return the kind; None for a name that this version of the hub does not have."""
    return _kinds.get(name)
