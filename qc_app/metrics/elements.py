"""Read single values from a parsed data set without converting the rest of it.

pydicom keeps each element as bytes until it is asked for; converting one costs more than reading the file.
Every reader returns nothing (an empty tuple, None or "") for an element that is absent, empty or not
parsable; the caller decides what that means.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset


def numbers(dataset: Dataset, tag: int) -> tuple[float, ...]:
    """Return the values of a decimal or integer string, or of a binary float, as finite numbers, else ()."""
    element = dataset.get_item(tag)
    if element is None:
        return ()
    if isinstance(element, RawDataElement) and _value_representation(element) in ("DS", "IS"):
        parts: Sequence[object] = (element.value or b"").strip(b" \0").split(b"\\")
    else:
        value = dataset[tag].value
        parts = [value] if isinstance(value, int | float | str) else list(value or ())
    try:
        parsed = tuple(float(part) for part in parts)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ()
    return parsed if all(map(math.isfinite, parsed)) else ()


def _value_representation(element: RawDataElement) -> str:
    """Return the element's VR, from the dictionary where the transfer syntax writes none."""
    if element.VR not in (None, "UN"):
        return str(element.VR)
    return dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN"


def number(dataset: Dataset, tag: int) -> float | None:
    """Return the first value of `numbers`, or None."""
    values = numbers(dataset, tag)
    return values[0] if values else None


def shorts(dataset: Dataset, tag: int) -> tuple[int, ...]:
    """Return the values of a 16-bit unsigned element (US), or of an ambiguous US/SS element, as unsigned."""
    element = dataset.get_item(tag)
    if element is None:
        return ()
    if isinstance(element, RawDataElement):
        value = element.value or b""
        if len(value) % 2:
            return ()
        return struct.unpack(f"{'<' if element.is_little_endian else '>'}{len(value) // 2}H", value)
    converted = dataset[tag].value
    values = [converted] if isinstance(converted, int) else list(converted or ())
    return tuple(int(item) & 0xFFFF for item in values)


def short(dataset: Dataset, tag: int) -> int | None:
    """Return the first value of `shorts`, or None."""
    values = shorts(dataset, tag)
    return values[0] if values else None


def text(dataset: Dataset, tag: int) -> str:
    """Return the text of an element (ASCII; other characters replaced), stripped, or ""."""
    element = dataset.get_item(tag)
    if element is None:
        return ""
    value = element.value if isinstance(element, RawDataElement) else dataset[tag].value
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip(" \0")
    if value is None:
        return ""
    return str(value).strip() if isinstance(value, str) else "\\".join(str(part) for part in value)


def items(dataset: Dataset, tag: int) -> Sequence[Dataset]:
    """Return the items of a sequence, or ()."""
    if dataset.get_item(tag) is None:
        return ()
    value = dataset[tag].value
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def first_item(dataset: Dataset, tag: int) -> Dataset | None:
    """Return the first item of a sequence, or None."""
    found = items(dataset, tag)
    return found[0] if found else None
