"""Comparing and writing observed values: float noise, case, white space and vendors' aliases."""

from __future__ import annotations

import re
from typing import Any

from sites_app.dicom.observations import Value

NOISE_RELATIVE = 1e-6
"""Two numbers closer than this, relative to the larger, are one number.

Values pass through single precision (2**-24, 6e-8) and scanner arithmetic: Philips writes a repetition time
of 500 ms as 499.999786 (4.3e-7). No scanner setting is as fine as one part in a million.
"""

_LARGEST = 1e300

ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "Manufacturer": {
        "siemens": (
            "siemens ag", "siemens healthineers", "siemens healthineers ag", "siemens healthcare",
            "siemens healthcare gmbh", "siemens medical solutions", "siemens medical systems",
        ),
        "ge": (
            "ge medical systems", "ge healthcare", "gehc", "gems", "general electric",
            "general electric healthcare", "ge healthcare technologies",
        ),
        "philips": (
            "philips medical systems", "philips healthcare", "philips medical systems nederland b.v.",
            "philips medical systems, inc.",
        ),
        "canon": (
            "canon_mec", "canon_mec_mr", "canon_mec_ct", "canon medical systems",
            "canon medical systems corporation", "toshiba", "toshiba_mec", "toshiba_mec_mr", "toshiba_mec_ct",
            "toshiba medical systems", "toshiba medical systems corporation",
        ),
        "uih": (
            "united imaging", "united imaging healthcare", "united-imaging",
            "shanghai united imaging healthcare co., ltd.",
        ),
        "fujifilm": ("hitachi", "hitachi medical corporation", "hitachi, ltd.", "fujifilm healthcare",
                     "fujifilm healthcare corporation"),
    },
    "InPlanePhaseEncodingDirection": {"col": ("column",)},
}  # fmt: skip
"""Canonical spelling (case-folded) and the others that mean the same, per parameter."""

_REEXPORT = re.compile(r"\s*/ mim software$")
_MODEL_PREFIX = re.compile(r"^magnetom\s+")


def normalise(parameter: str, text: str) -> str:
    """Return the text as it is compared: case-folded, single spaces, aliases replaced by one spelling."""
    folded = " ".join(text.casefold().split())
    if parameter == "Manufacturer":
        # A re-export through this workstation appends its own name to the scanner's manufacturer.
        folded = _REEXPORT.sub("", folded)
    if parameter == "ManufacturerModelName":
        # One scanner is "Prisma_fit" before and "MAGNETOM Prisma Fit" after a Siemens XA upgrade.
        folded = _MODEL_PREFIX.sub("", folded.replace("_", " "))
    for canonical, others in ALIASES.get(parameter, {}).items():
        if folded in others:
            return canonical
    return folded


def is_number(value: object) -> bool:
    """Tell whether the value is a number that can be calculated with: finite, no boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST < value < _LARGEST


def is_empty(value: object) -> bool:
    """Tell whether the value says nothing: None, blank text, or a list of nothing but such values."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, tuple | list):
        return all(is_empty(item) for item in value)
    return False


def is_readable(value: object) -> bool:
    """Tell whether every part of the value is text, a truth value or a finite number."""
    if isinstance(value, tuple | list):
        return all(is_readable(item) for item in value)
    return isinstance(value, str | bool) or is_number(value)


def noise(*numbers: float) -> float:
    """Return the difference below which these numbers cannot be told apart."""
    return NOISE_RELATIVE * max(abs(number) for number in numbers)


def within(value: float, low: float | None, high: float | None) -> bool:
    """Tell whether low <= value <= high, bounds included and safe against float noise."""
    if low is not None and value < low - noise(value, low):
        return False
    return high is None or value <= high + noise(value, high)


def close(value: float, target: float, tolerance: float) -> bool:
    """Tell whether the value is within the tolerance of the target, bound included."""
    return abs(value - target) <= tolerance + noise(value, target)


def same(parameter: str, left: Any, right: Any) -> bool:
    """Tell whether two values are one: numbers but for noise, text but for case and aliases."""
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(
            same(parameter, a, b) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if is_number(left) and is_number(right):
        return close(left, right, 0.0)
    if isinstance(left, str) and isinstance(right, str):
        return normalise(parameter, left) == normalise(parameter, right)
    return False


def items(value: Value) -> tuple[Any, ...]:
    """Return a multi-valued value's parts, or the only value as a tuple of one."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def format_value(value: Any, unit: str = "") -> str:
    """Write a value for people: at most seven significant digits, lists with ×, the unit once."""
    if value is None:
        return "not recorded"
    text = _format_list(value) if isinstance(value, tuple | list) else _format_item(value)
    return f"{text} {unit}" if unit else text


def _format_list(value: tuple[Any, ...] | list[Any]) -> str:
    joint = " × " if all(is_number(item) for item in value) and len(value) > 1 else ", "
    return joint.join(_format_item(item) for item in value) or "nothing"


def _format_item(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if str(value).strip() else "(empty)"
    if isinstance(value, float):
        return f"{value:.7g}"
    return str(value) if str(value).strip() else "(empty)"
