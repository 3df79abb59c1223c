"""JSON that a database keeps as it is: texts without zero characters or halves of characters, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

Place = tuple[tuple[str | int, ...], str]


def unkept_texts(value: Any) -> Iterator[Place]:
    """Yield the path of each text in a JSON value that cannot be kept, with what is wrong with it.

    Names in a path are written so that they can be shown.
    """
    for path, leaf in _leaves(value, ()):
        if isinstance(leaf, str) and _unkept(leaf):
            yield path, "holds a character that cannot be kept (zero, or half of a pair); remove it"


def infinite_numbers(value: Any) -> Iterator[Place]:
    """Yield the path of each number in a JSON value that is not finite, with what is wrong with it."""
    for path, leaf in _leaves(value, ()):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            yield path, "is no finite number"


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            shown = key.encode("unicode_escape").decode() if _unkept(key) else key
            yield (*path, shown), key
            yield from _leaves(item, (*path, shown))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _unkept(text: str) -> bool:
    return "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text)
