"""Features shared among threads, for loops that leave the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Result = TypeVar("Result")
_beside: ContextVar[bool] = ContextVar("beside", default=False)
# Shares for each thread: the last to end keeps the others waiting less.
SHARES = 16


def thread_limit() -> int:
    """Return how many threads a computation may take: as the variables of BLAS say, else one per processor.

    Tasks of a hub have 1 in their environment.
    """
    if _beside.get():
        return 1
    allowed = [int(os.environ[name]) for name in THREAD_VARIABLES if os.environ.get(name, "").isdecimal()]
    return max(1, min([_processors(), *allowed]))


def _processors() -> int:
    """Return the processors this process may run on, where the system tells them; else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def beside(work: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """Give a call that returns what `work` returns or raises; begun at once in a thread where there may be two."""
    if thread_limit() == 1:
        yield work
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(_alone, work).result


def _alone(work: Callable[[], Result]) -> Result:
    """Do `work` on this one thread; the other processor has the caller's."""
    _beside.set(True)
    return work()


def spread(work: Callable[[int, int], None], features: int, unit: int) -> None:
    """Call `work(first, last)` for shares of `features` that begin at multiples of `unit`, several at a time."""
    threads = thread_limit()
    if threads == 1 or features <= unit:
        work(0, features)
        return
    share = -(-features // (threads * SHARES * unit)) * unit
    starts = range(0, features, share)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, starts, [min(start + share, features) for start in starts]))
