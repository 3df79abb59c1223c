"""The kinds of jobs. `@job` is the only way to declare background work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobKind:
    """How one kind of job runs. Limits are seconds; `on_failure` is told the arguments and the reason."""

    name: str
    queue: str
    function: Callable[..., None]
    soft_limit_s: int
    hard_limit_s: int
    max_attempts: int
    on_failure: Callable[[dict[str, Any], str], None] | None


_kinds: dict[str, JobKind] = {}


def job(
    *,
    name: str,
    queue: str,
    soft_limit_s: int = 600,
    hard_limit_s: int = 660,
    max_attempts: int = 3,
    on_failure: Callable[[dict[str, Any], str], None] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a function `f(context, **arguments)` as a kind of job.

    It must be idempotent: after a crash it runs again with the same arguments (primary keys only).
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        _kinds[name] = JobKind(name, queue, function, soft_limit_s, hard_limit_s, max_attempts, on_failure)
        return function

    return declare


def kind_named(name: str) -> JobKind:
    """Return the kind; raises KeyError for an unknown name."""
    return _kinds[name]
