"""One value against one test: satisfied, not satisfied, or impossible to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qc_app.protocol.model import Test
from qc_app.protocol.patterns import PatternInvalid, matches
from qc_app.protocol.values import (
    close,
    format_value,
    is_empty,
    is_number,
    is_readable,
    items,
    normalise,
    same,
    within,
)


class CannotJudge(Exception):
    """The value is of a kind that this test cannot judge; the message completes "… because it …"."""


def satisfies(test: Test, value: Any) -> bool:
    """Tell whether a recorded value satisfies the test.

    Raises CannotJudge where the value is empty, not finite, or of another kind than the test judges.
    """
    if is_empty(value):
        raise CannotJudge("is empty")
    if not is_readable(value):
        raise CannotJudge("is not a readable value")
    return _JUDGES[test.kind](test.parameter, test.arguments, value)


def expected_text(test: Test) -> str:
    """Return what the test wants, as people say it: "2300 ± 10 ms", "one of 100, 120 kV"."""
    return _TEXTS[test.kind](test.arguments, test.unit)


def _number(value: Any) -> float:
    parts = items(value)
    if len(parts) != 1:
        raise CannotJudge(f"has {len(parts)} values where one number was expected")
    if not is_number(parts[0]):
        raise CannotJudge("is not a number")
    return float(parts[0])


def _numbers(value: Any) -> tuple[float, ...]:
    parts = items(value)
    if not all(is_number(part) for part in parts):
        raise CannotJudge("is not a list of numbers")
    return tuple(float(part) for part in parts)


def _require_kind(wanted: Any, value: Any) -> None:
    """Refuse to compare text with numbers: "120" in place of 120 is a reading fault, not another setting."""
    for part in items(value):
        if is_number(part) != is_number(wanted) or isinstance(part, bool) != isinstance(wanted, bool):
            raise CannotJudge(f"is not {_kind_name(wanted)}")


def _kind_name(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return "a number" if is_number(value) else "text"


def _equals(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    wanted = arguments["value"]
    _require_kind(items(wanted)[0], value)
    if all(isinstance(part, str) for part in items(wanted)):
        # DICOM gives multi-valued text such as ScanningSequence no order that vendors keep.
        return _folded(parameter, wanted) == _folded(parameter, value)
    return same(parameter, items(wanted), items(value))


def _folded(parameter: str, value: Any) -> list[str]:
    return sorted(normalise(parameter, part) for part in items(value))


def _one_of(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    allowed = arguments["values"]
    _require_kind(allowed[0], value)
    tolerance = arguments.get("tolerance", 0)
    if is_number(allowed[0]):
        return all(any(close(part, item, tolerance) for item in allowed) for part in _numbers(value))
    return all(any(same(parameter, part, item) for item in allowed) for part in items(value))


def _range(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    low, high = arguments.get("min"), arguments.get("max")
    return all(within(number, low, high) for number in _numbers(value))


def _tolerance_absolute(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    return close(_number(value), arguments["value"], arguments["tolerance"])


def _tolerance_relative(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    target = arguments["value"]
    return close(_number(value), target, abs(target) * arguments["tolerance_percent"] / 100)


def _vector(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    targets = arguments["value"]
    tolerance = arguments["tolerance"]
    tolerances = tolerance if isinstance(tolerance, list | tuple) else [tolerance] * len(targets)
    numbers = _numbers(value)
    if len(numbers) != len(targets):
        return False
    return all(close(*triple) for triple in zip(numbers, targets, tolerances, strict=True))


def _regex(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    parts = items(value)
    if not all(isinstance(part, str) for part in parts):
        raise CannotJudge("is not text")
    try:
        return any(matches(arguments["pattern"], part.strip()) for part in parts)
    except PatternInvalid as error:
        raise CannotJudge(f"cannot be compared: {error}") from error


def _contains(parameter: str, arguments: Mapping[str, Any], value: Any) -> bool:
    parts = items(value)
    if not all(isinstance(part, str) for part in parts):
        raise CannotJudge("is not text")
    held = {normalise(parameter, part) for part in parts}
    every = {normalise(parameter, item) for item in arguments.get("all", ())}
    some = {normalise(parameter, item) for item in arguments.get("any", ())}
    none = {normalise(parameter, item) for item in arguments.get("none", ())}
    return every <= held and (not some or bool(some & held)) and not none & held


_JUDGES: dict[str, Callable[[str, Mapping[str, Any], Any], bool]] = {
    "equals": _equals,
    "one_of": _one_of,
    "range": _range,
    "tolerance_absolute": _tolerance_absolute,
    "tolerance_relative": _tolerance_relative,
    "vector": _vector,
    "regex": _regex,
    "contains": _contains,
    "count": _range,
    "present": lambda parameter, arguments, value: True,
    "absent": lambda parameter, arguments, value: False,
}


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text


def _list_text(arguments: Mapping[str, Any], unit: str) -> str:
    text = "one of " + ", ".join(format_value(item) for item in arguments["values"])
    if arguments.get("tolerance"):
        text += f" ± {format_value(arguments['tolerance'])}"
    return _with_unit(text, unit)


def _range_text(arguments: Mapping[str, Any], unit: str) -> str:
    low, high = arguments.get("min"), arguments.get("max")
    if low is not None and high is not None:
        text = format_value(low) if low == high else f"{format_value(low)} to {format_value(high)}"
    elif low is not None:
        text = f"at least {format_value(low)}"
    else:
        text = f"at most {format_value(high)}"
    return _with_unit(text, unit)


def _contains_text(arguments: Mapping[str, Any], unit: str) -> str:
    words = {"all": "contains all of", "any": "contains any of", "none": "contains none of"}
    parts = [f"{phrase} {', '.join(arguments[key])}" for key, phrase in words.items() if arguments.get(key)]
    return "; ".join(parts)


def _tolerance_text(arguments: Mapping[str, Any], unit: str) -> str:
    return _with_unit(f"{format_value(arguments['value'])} ± {format_value(arguments['tolerance'])}", unit)


_TEXTS: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "equals": lambda arguments, unit: format_value(arguments["value"], unit),
    "one_of": _list_text,
    "range": _range_text,
    "tolerance_absolute": _tolerance_text,
    "tolerance_relative": lambda arguments, unit: (
        f"{format_value(arguments['value'], unit)} ± {format_value(arguments['tolerance_percent'])} %"
    ),
    "vector": _tolerance_text,
    "regex": lambda arguments, unit: f"text of the form {arguments['pattern']}",
    "contains": _contains_text,
    "count": _range_text,
    "present": lambda arguments, unit: "a recorded value",
    "absent": lambda arguments, unit: "no value",
}
