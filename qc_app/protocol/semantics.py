"""What a JSON Schema cannot say of a protocol: units, bounds, patterns, unique names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from qc_app.protocol.model import CatalogueEntry
from qc_app.protocol.patterns import PatternInvalid, compile_pattern
from qc_app.protocol.values import is_number, items

Fault = tuple[str, str]
Path = tuple[Any, ...]

_TEXT_KINDS = ("equals", "one_of", "regex", "present", "absent")
_NUMBER_KINDS = (
    "equals", "one_of", "range", "tolerance_absolute", "tolerance_relative", "present", "absent",
)  # fmt: skip
_KINDS_OF: dict[str, tuple[str, ...]] = {
    "number": _NUMBER_KINDS,
    "integer": _NUMBER_KINDS,
    "vector": ("vector", "equals", "range", "present", "absent"),
    "text": _TEXT_KINDS,
    "text_list": (*_TEXT_KINDS, "contains"),
    "date": _TEXT_KINDS,
    "time": _TEXT_KINDS,
    "datetime": _TEXT_KINDS,
    "boolean": ("equals", "present", "absent"),
}
_VALUE_WORDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "number": ("a number", is_number),
    "integer": ("a number", is_number),
    "vector": ("a list of numbers", is_number),
    "text": ("text", lambda value: isinstance(value, str)),
    "text_list": ("text or a list of texts", lambda value: isinstance(value, str)),
    "date": ("text", lambda value: isinstance(value, str)),
    "time": ("text", lambda value: isinstance(value, str)),
    "datetime": ("text", lambda value: isinstance(value, str)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
}


def pointer(path: Iterable[Any]) -> str:
    """Return the JSON pointer (RFC 6901) of a path of keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def check_meaning(
    document: Mapping[str, Any],
    catalogue: Mapping[str, CatalogueEntry],
    visit_codes: frozenset[str] | None,
) -> list[Fault]:
    """Return the faults of a canonical document that fits the schema, each with its JSON pointer."""
    faults = list(_name_faults((), document["name"], "name"))
    faults += _repeated(document["series"], "key", ("series",))
    for index, series in enumerate(document["series"]):
        path: Path = ("series", index)
        faults += _name_faults(path, series["key"], "key")
        faults += _series_faults(series, path, visit_codes)
        faults += _repeated(series["rules"], "id", (*path, "rules"))
        for number, rule in enumerate(series["rules"]):
            faults += _rule_faults(rule, (*path, "rules", number), catalogue)
        for number, entry in enumerate(series["match"]):
            faults += _match_faults(entry, (*path, "match", number), catalogue)
        faults += _exemption_faults(series, path, catalogue)
    return faults


def _name_faults(path: Path, name: str, field: str) -> Iterator[Fault]:
    # In Python "$" also matches before a final line break, which the schema's pattern therefore lets pass.
    if name != name.strip():
        yield pointer((*path, field)), f"{name!r} ends in a line break; remove it."


def _repeated(entries: list[dict[str, Any]], field: str, path: Path) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        name = entry[field].casefold()
        if name in seen:
            yield (
                pointer((*path, index, field)),
                f"{entry[field]!r} is already the {field} of entry {seen[name]}; give each its own.",
            )
        seen.setdefault(name, index)


def _series_faults(
    series: Mapping[str, Any], path: Path, visit_codes: frozenset[str] | None
) -> Iterator[Fault]:
    count = series["count"]
    if count["max"] is not None and count["min"] > count["max"]:
        yield pointer((*path, "count", "min")), _min_max(count["min"], count["max"])
    if series["required"] and count["min"] == 0:
        yield (
            pointer((*path, "count", "min")),
            "A required series is expected at least once; set min to 1, or required to false.",
        )
    visits = series["visits"] or []
    for index, code in enumerate(visits):
        if code in visits[:index]:
            yield pointer((*path, "visits", index)), f"Visit {code!r} is named twice; name it once."
        if visit_codes is not None and code not in visit_codes:
            known = ", ".join(sorted(visit_codes)) or "none"
            yield pointer((*path, "visits", index)), f"The trial has no visit {code!r}; use one of: {known}."


def _min_max(low: Any, high: Any) -> str:
    return f"min {low} is larger than max {high}, so nothing could comply; exchange or correct them."


def _rule_faults(
    rule: Mapping[str, Any], path: Path, catalogue: Mapping[str, CatalogueEntry]
) -> Iterator[Fault]:
    yield from _name_faults(path, rule["id"], "id")
    yield from _test_faults(rule, path, catalogue)
    yield from _applies_to_faults(rule.get("applies_to", {}), (*path, "applies_to"))
    if rule["kind"] in ("present", "absent") and rule["allow_missing"]:
        yield (
            pointer((*path, "allow_missing")),
            f"A rule that wants the value {rule['kind']} cannot leave it open; set allow_missing to false.",
        )


def _match_faults(
    entry: Mapping[str, Any], path: Path, catalogue: Mapping[str, CatalogueEntry]
) -> Iterator[Fault]:
    for group in ("any_of", "all_of"):
        if group in entry:
            for index, item in enumerate(entry[group]):
                yield from _match_faults(item, (*path, group, index), catalogue)
            return
    yield from _test_faults(entry, path, catalogue)
    if entry["kind"] == "present" and entry["negate"]:
        yield pointer((*path, "negate")), "A condition that nothing can satisfy; remove it."


def _test_faults(
    entry: Mapping[str, Any], path: Path, catalogue: Mapping[str, CatalogueEntry]
) -> Iterator[Fault]:
    yield from _bounds_faults(entry, path)
    yield from _pattern_fault(entry.get("pattern"), (*path, "pattern"))
    if entry["kind"] == "count":
        return
    known = catalogue.get(entry["parameter"])
    if known is None:
        yield pointer((*path, "parameter")), _unknown_parameter(entry["parameter"], catalogue)
        return
    if entry["unit"] != known.unit:
        unit = known.unit or "no unit (an empty text)"
        yield (
            pointer((*path, "unit")),
            f"{entry['parameter']} is judged in {unit}, not in {entry['unit'] or 'no unit'}; "
            "convert the numbers.",
        )
    yield from _kind_faults(entry, path, known.kind)


def _unknown_parameter(keyword: str, catalogue: Mapping[str, CatalogueEntry]) -> str:
    folded = keyword.casefold()
    near = sorted(name for name in catalogue if folded in name.casefold() or name.casefold() in folded)[:5]
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"{keyword!r} is no parameter of the catalogue; use one of its keywords.{hint}"


def _kind_faults(entry: Mapping[str, Any], path: Path, value_kind: str) -> Iterator[Fault]:
    allowed = _KINDS_OF.get(value_kind)
    if allowed is None:
        return
    if entry["kind"] not in allowed:
        yield (
            pointer((*path, "kind")),
            f"{entry['parameter']} holds {_VALUE_WORDS[value_kind][0]}; use one of {', '.join(allowed)}.",
        )
        return
    words, fits = _VALUE_WORDS[value_kind]
    if entry["kind"] not in ("equals", "one_of"):
        return
    field = "value" if entry["kind"] == "equals" else "values"
    wrong = [part for part in items(entry[field]) if not fits(part)]
    if wrong or (
        value_kind != "vector" and isinstance(entry.get("value"), list) and value_kind != "text_list"
    ):
        yield pointer((*path, field)), f"{entry['parameter']} holds {words}; write it so."


def _bounds_faults(entry: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    kind, low, high = entry["kind"], entry.get("min"), entry.get("max")
    if kind in ("range", "count"):
        if low is None and high is None:
            yield pointer(path), f"A {kind} rule needs min, max or both; add one."
        elif low is not None and high is not None and low > high:
            yield pointer((*path, "min")), _min_max(low, high)
    if kind == "contains":
        yield from _contains_faults(entry, path)
    tolerance = entry.get("tolerance")
    if kind == "vector" and isinstance(tolerance, list) and len(tolerance) != len(entry["value"]):
        yield (
            pointer((*path, "tolerance")),
            f"There are {len(tolerance)} tolerances for {len(entry['value'])} numbers; "
            "write one, or one for each.",
        )
    if kind == "tolerance_relative" and entry["value"] == 0:
        yield pointer((*path, "value")), "A share of zero is zero; use tolerance_absolute."
    if kind == "one_of" and tolerance is not None and not all(is_number(item) for item in entry["values"]):
        yield pointer((*path, "tolerance")), "A tolerance needs numbers to be around; remove it."


def _contains_faults(entry: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    if not any(key in entry for key in ("all", "any", "none")):
        yield pointer(path), "A contains rule needs all, any or none; add one."
    forbidden = {word.casefold() for word in entry.get("none", ())}
    for index, word in enumerate(entry.get("all", ())):
        if word.casefold() in forbidden:
            yield pointer((*path, "all", index)), f"{word!r} is both wanted and forbidden; decide for one."


def _pattern_fault(pattern: str | None, path: Path) -> Iterator[Fault]:
    if pattern is None:
        return
    try:
        compile_pattern(pattern)
    except PatternInvalid as error:
        text = str(error)
        yield pointer(path), f"{text[:1].upper()}{text[1:]}."


def _applies_to_faults(data: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    for field in ("model_pattern", "software_pattern"):
        yield from _pattern_fault(data.get(field), (*path, field))
    strength = data.get("field_strength")
    if strength is None:
        return
    low, high = strength.get("min"), strength.get("max")
    if low is None and high is None:
        yield (
            pointer((*path, "field_strength")),
            "A field strength needs min, max or both, in tesla; add one.",
        )
    elif low is not None and high is not None and low > high:
        yield pointer((*path, "field_strength", "min")), _min_max(low, high)


def _exemption_faults(
    series: Mapping[str, Any], path: Path, catalogue: Mapping[str, CatalogueEntry]
) -> Iterator[Fault]:
    ruled = {rule.get("parameter") for rule in series["rules"]}
    for index, exemption in enumerate(series["exempt"]):
        here: Path = (*path, "exempt", index)
        keyword = exemption["parameter"]
        if keyword not in catalogue:
            yield pointer((*here, "parameter")), _unknown_parameter(keyword, catalogue)
        elif keyword not in ruled:
            yield (
                pointer((*here, "parameter")),
                f"No rule of this series is on {keyword}; remove the exemption.",
            )
        yield from _applies_to_faults(exemption["applies_to"], (*here, "applies_to"))
