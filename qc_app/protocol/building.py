"""From a document that fits the schema to its canonical form and the parsed protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qc_app.protocol.model import (
    COUNTABLE,
    AnyOf,
    AppliesTo,
    CatalogueEntry,
    Completeness,
    Condition,
    Exemption,
    ExpectedSeries,
    ProtocolSpec,
    Rule,
    SeriesCount,
    Test,
    format_tag,
)

_ARGUMENTS = (
    "value",
    "values",
    "min",
    "max",
    "tolerance",
    "tolerance_percent",
    "pattern",
    "all",
    "any",
    "none",
    "of",
)
_SERIES_DEFAULTS: dict[str, Any] = {"required": True, "visits": None}
_COUNT_DEFAULTS: dict[str, Any] = {"min": 1, "max": 1, "severity": "major"}
_COMPLETENESS_DEFAULTS: dict[str, Any] = {
    "require_geometry": True,
    "allow_gaps": False,
    "allow_irregular_spacing": False,
    "allow_duplicate_positions": False,
    "allow_several_orientations": False,
    "severity": "major",
}
_COUNT_LABELS = {
    "instances": "Number of instances",
    "positions": "Number of slice positions",
    "frames": "Number of frames",
    "volumes": "Number of volumes",
}


def canonical_document(
    document: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]
) -> dict[str, Any]:
    """Return the document with defaults and units written out and whole numbers as integers."""
    plain = _plain(document)
    return {
        "description": "",
        "sources": [],
        **plain,
        "series": [_canonical_series(series, catalogue) for series in plain["series"]],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _canonical_series(series: dict[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> dict[str, Any]:
    return {
        **_SERIES_DEFAULTS,
        "exempt": [],
        **series,
        "count": {**_COUNT_DEFAULTS, **series.get("count", {})},
        "completeness": {**_COMPLETENESS_DEFAULTS, **series.get("completeness", {})},
        "match": [_canonical_entry(entry, catalogue) for entry in series["match"]],
        "rules": [_canonical_rule(rule, catalogue) for rule in series["rules"]],
    }


def _canonical_entry(entry: dict[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> dict[str, Any]:
    for group in ("any_of", "all_of"):
        if group in entry:
            return {group: [_canonical_entry(item, catalogue) for item in entry[group]]}
    return {"negate": False, "unit": _unit(entry, catalogue), **entry}


def _canonical_rule(rule: dict[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"severity": "major", "note": "", "action": ""}
    if rule["kind"] != "count":
        defaults |= {"allow_missing": False, "allow_varying": False, "unit": _unit(rule, catalogue)}
    return {**defaults, **rule}


def _unit(entry: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> str:
    known = catalogue.get(entry["parameter"])
    return known.unit if known is not None else ""


def build_spec(
    document: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry], document_digest: str
) -> ProtocolSpec:
    """Return the parsed protocol of a canonical document that passed all checks."""
    return ProtocolSpec(
        name=document["name"],
        title=document["title"],
        series=tuple(_series(series, catalogue) for series in document["series"]),
        document=document,
        digest=document_digest,
    )


def _series(data: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> ExpectedSeries:
    visits = data["visits"]
    count = data["count"]
    return ExpectedSeries(
        key=data["key"],
        title=data["title"],
        modality=data["modality"],
        required=data["required"],
        visits=None if visits is None else tuple(visits),
        count=SeriesCount(count["min"], count["max"], count["severity"]),
        match=tuple(_match_entry(entry, catalogue) for entry in data["match"]),
        rules=tuple(_rule(rule, catalogue) for rule in data["rules"]),
        exemptions=tuple(
            Exemption(item["parameter"], _applies_to(item["applies_to"]), item["reason"])
            for item in data["exempt"]
        ),
        completeness=Completeness(**data["completeness"]),
    )


def _rule(data: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> Rule:
    return Rule(
        id=data["id"],
        test=_test(data, catalogue),
        severity=data["severity"],
        applies_to=_applies_to(data.get("applies_to", {})),
        allow_missing=data.get("allow_missing", False),
        allow_varying=data.get("allow_varying", False),
        note=data["note"],
        action=data["action"],
    )


def _test(data: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> Test:
    arguments = {name: data[name] for name in _ARGUMENTS if name in data}
    if data["kind"] == "count":
        of = data["of"]
        return Test("count", COUNTABLE[of], _COUNT_LABELS[of], "", "", arguments)
    entry = catalogue[data["parameter"]]
    return Test(data["kind"], data["parameter"], entry.label, entry.unit, format_tag(entry.tag), arguments)


def _match_entry(data: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> Condition | AnyOf:
    if "any_of" not in data:
        return _condition(data, catalogue)
    alternatives = []
    for item in data["any_of"]:
        parts = item.get("all_of", [item])
        alternatives.append(tuple(_condition(part, catalogue) for part in parts))
    return AnyOf(tuple(alternatives))


def _condition(data: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry]) -> Condition:
    return Condition(_test(data, catalogue), data["negate"])


def _applies_to(data: Mapping[str, Any]) -> AppliesTo:
    field_strength = data.get("field_strength")
    return AppliesTo(
        manufacturers=tuple(data.get("manufacturer", ())),
        models=tuple(data.get("model", ())),
        model_pattern=data.get("model_pattern", ""),
        field_strength_t=(
            None if field_strength is None else (field_strength.get("min"), field_strength.get("max"))
        ),
        software_pattern=data.get("software_pattern", ""),
    )
