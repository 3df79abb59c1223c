"""Sweepers of the apps: each looks at database states and re-enqueues what nobody is working on."""

from __future__ import annotations

from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)
_sweepers: list[Callable[[], int]] = []


def register_sweeper(function: Callable[[], int]) -> None:
    """Call `function` every few seconds; it returns how many things it brought back. Register in ready()."""
    if function not in _sweepers:
        _sweepers.append(function)


def run_sweepers() -> None:
    """Run every sweeper; one that fails does not keep the others from running."""
    for function in _sweepers:
        try:
            count = function()
        except Exception as error:
            log.exception("sweeper.failed", sweeper=function.__qualname__, error=type(error).__name__)
        else:
            if count:
                log.info("sweeper.recovered", sweeper=function.__qualname__, count=count)
