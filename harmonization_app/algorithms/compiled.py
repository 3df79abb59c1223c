"""Python loops compiled to machine code by numba.

Import a module of such loops where it is called: numba takes 50 MB, which a process that harmonizes nothing should not
pay. Loops that call each other stand in one file: what is kept on disk is made anew when that file changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit


class _Kept:
    """Machine code on disk that is never needed: a damaged file is compiled anew, and a full disk keeps none."""

    def __init__(self, disk: Any) -> None:
        self._disk = disk
        self.cache_path: str = disk.cache_path

    def load_overload(self, *key: Any) -> Any:
        try:
            return self._disk.load_overload(*key)
        except Exception:  # whatever unpickling raises
            return None

    def save_overload(self, *entry: Any) -> None:
        with suppress(Exception):
            try:
                self._disk.save_overload(*entry)
            except Exception:  # also where the index is damaged
                self._disk.flush()
                self._disk.save_overload(*entry)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as machine code that lets other threads run; kept on disk where a folder can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        made: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for it can be written
        made = njit(**options)(function)
    else:
        if hasattr(made, "_cache"):  # not where numba is told to interpret
            made._cache = _Kept(made._cache)
    return made  # type: ignore[no-any-return]
