"""One BLAS thread for the small products of a kernel, where more only wait for each other."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import scipy.linalg  # noqa: F401  # loads scipy's own BLAS, so that the limit holds for it as well
from threadpoolctl import ThreadpoolController


def single_thread() -> AbstractContextManager[object]:
    """Return a context with one BLAS thread; results do not depend on the threads as installed.

    Libraries are looked up once: as often as a kernel is called, that would take longer than the kernel.
    """
    context: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return context


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
