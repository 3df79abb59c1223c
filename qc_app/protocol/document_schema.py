"""The published JSON Schema (2020-12) of an acquisition protocol."""

from __future__ import annotations

from typing import Any

from qc_app.protocol.model import COUNTABLE, SCHEMA_NAME, SEVERITIES
from qc_app.protocol.patterns import MAX_PATTERN_CHARACTERS

_KEY = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _text(description: str, *, longest: int = 2000, shortest: int = 0) -> dict[str, Any]:
    return {"type": "string", "minLength": shortest, "maxLength": longest, "description": description}


def _flag(description: str, default: bool) -> dict[str, Any]:
    return {"type": "boolean", "default": default, "description": description}


def _list(items: dict[str, Any], description: str, *, fewest: int = 0, most: int = 500) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": fewest, "maxItems": most, "description": description}


def _object(properties: dict[str, Any], required: list[str], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_SCALAR: dict[str, Any] = {"type": ["number", "string", "boolean"]}
_SEVERITY: dict[str, Any] = {
    "enum": list(SEVERITIES),
    "default": "major",
    "description": "How much a departure matters; reported with the verdict, it never changes the outcome.",
}
_PATTERN = _text(
    "Regular expression that the whole text has to match, ignoring case; write .* for what may stand around. "
    "Look-around and back-references are not available.",
    longest=MAX_PATTERN_CHARACTERS,
    shortest=1,
)
_TOLERANCE: dict[str, Any] = {"type": "number", "minimum": 0}
_UNIT = _text(
    "Unit of all numbers of this entry; has to be the parameter's unit in the catalogue.", longest=20
)
_PARAMETER = _text(
    "Keyword of the acquisition parameter in the catalogue, as in DICOM.", longest=64, shortest=1
)

_KINDS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "equals": (
        "The value is this one: numbers but for float noise (1e-6, relative), text but for case, space and "
        "manufacturers' aliases, multi-valued text in any order.",
        {
            "value": {
                "oneOf": [_SCALAR, _list(_SCALAR, "Value of a multi-valued parameter.", fewest=1)],
                "description": "The wanted value.",
            }
        },
        ["value"],
    ),
    "one_of": (
        "The value, or each part of a multi-valued one, is in this list.",
        {
            "values": _list(_SCALAR, "The allowed values, all text or all numbers.", fewest=1),
            "tolerance": {**_TOLERANCE, "description": "Absolute tolerance around each allowed number."},
        },
        ["values"],
    ),
    "range": (
        "The number, or each number of a list, is between the bounds, bounds included.",
        {
            "min": {"type": "number", "description": "Lowest allowed number."},
            "max": {"type": "number", "description": "Highest allowed number."},
        },
        [],
    ),
    "tolerance_absolute": (
        "The number is within value ± tolerance, bounds included.",
        {
            "value": {"type": "number", "description": "The wanted number."},
            "tolerance": {
                **_TOLERANCE,
                "description": "Largest allowed difference, in the parameter's unit.",
            },
        },
        ["value", "tolerance"],
    ),
    "tolerance_relative": (
        "The number is within value ± tolerance_percent of the value, bounds included.",
        {
            "value": {"type": "number", "description": "The wanted number."},
            "tolerance_percent": {
                **_TOLERANCE,
                "description": "Largest allowed difference in % of the value.",
            },
        },
        ["value", "tolerance_percent"],
    ),
    "vector": (
        "A list of as many numbers, each within its tolerance.",
        {
            "value": _list({"type": "number"}, "The wanted numbers in order.", fewest=1),
            "tolerance": {
                "oneOf": [_TOLERANCE, _list(_TOLERANCE, "One tolerance per number.", fewest=1)],
                "description": "Largest allowed difference: one for all numbers, or one for each.",
            },
        },
        ["value", "tolerance"],
    ),
    "regex": ("The text, or one part of a multi-valued text, matches.", {"pattern": _PATTERN}, ["pattern"]),
    "contains": (
        "A multi-valued text such as ImageType holds, or does not hold, these words.",
        {
            "all": _list(_text("A word."), "Words that all have to be there.", fewest=1),
            "any": _list(_text("A word."), "Words of which at least one has to be there.", fewest=1),
            "none": _list(_text("A word."), "Words that must not be there.", fewest=1),
        },
        [],
    ),
    "present": ("Every instance records a readable value.", {}, []),
    "absent": ("No instance records a value.", {}, []),
    "count": (
        "The series has so many instances (files), slice positions, frames or volumes, bounds included.",
        {
            "of": {"enum": list(COUNTABLE), "description": "What is counted."},
            "min": {"type": "integer", "minimum": 0, "description": "Lowest allowed number."},
            "max": {"type": "integer", "minimum": 0, "description": "Highest allowed number."},
        },
        ["of"],
    ),
}

KINDS = tuple(_KINDS)

_RULE_PROPERTIES: dict[str, Any] = {
    "id": {
        "type": "string",
        "pattern": _KEY,
        "description": "Name of the rule, unique in its series; verdicts and waivers refer to it.",
    },
    "severity": _SEVERITY,
    "applies_to": {"$ref": "#/$defs/applies_to"},
    "allow_missing": _flag("A value that is not recorded is compliant.", False),
    "allow_varying": _flag("Values may differ inside the series; each of them still has to comply.", False),
    "note": _text("Why the rule is as it is, for people."),
    "action": _text("What the site shall do about a departure, in place of the hub's own words."),
}


def _kind_schemas(extra: dict[str, Any], required: list[str], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    schemas = []
    for kind in kinds:
        description, arguments, needed = _KINDS[kind]
        properties: dict[str, Any] = {
            "kind": {"const": kind, "description": description},
            **arguments,
            **extra,
        }
        names = [*required, "kind", *needed]
        if kind == "count":
            properties.pop("allow_missing", None)
            properties.pop("allow_varying", None)
        else:
            properties["parameter"] = _PARAMETER
            properties["unit"] = _UNIT
            names.append("parameter")
        schemas.append(_object(properties, names, description))
    return schemas


CONDITION_KINDS = tuple(kind for kind in KINDS if kind not in ("count", "absent"))
_NEGATE = _flag("A value has to be recorded and must not satisfy the comparison.", False)


def kind_schema(kind: str, *, condition: bool) -> dict[str, Any]:
    """Return the schema of one rule or condition of this kind, for errors that name the fault itself."""
    extra = {"negate": _NEGATE} if condition else _RULE_PROPERTIES
    schema = _kind_schemas(extra, [] if condition else ["id"], (kind,))[0]
    return {**schema, "$defs": PROTOCOL_SCHEMA["$defs"]}


_COUNT = _object(
    {
        "min": {"type": "integer", "minimum": 0, "default": 1, "description": "Fewest series per visit."},
        "max": {
            "type": ["integer", "null"],
            "minimum": 1,
            "default": 1,
            "description": "Most series per visit; null for no limit.",
        },
        "severity": _SEVERITY,
    },
    [],
    "How many such series a visit has. An optional series may be left out; if it is sent, this holds.",
)

_COMPLETENESS = _object(
    {
        "require_geometry": _flag("Slice positions have to be recorded and usable.", True),
        "allow_gaps": _flag("Slices may be missing between others.", False),
        "allow_irregular_spacing": _flag("Distances between neighbouring slices may differ.", False),
        "allow_duplicate_positions": _flag("A slice position may occur twice in one volume.", False),
        "allow_several_orientations": _flag("Slices need not be parallel (localizers).", False),
        "severity": _SEVERITY,
    },
    [],
    "What the slice geometry of a whole series may show. Slices missing at an end need a count rule.",
)

_SERIES = _object(
    {
        "key": {
            "type": "string",
            "pattern": _KEY,
            "description": "Name of the series, unique in the protocol.",
        },
        "title": _text("Name of the series for people.", longest=200, shortest=1),
        "modality": {
            "type": "string",
            "pattern": "^[A-Z]{2,16}$",
            "description": "Modality (0008,0060); a series of another modality never matches.",
        },
        "required": _flag("A visit without this series is a deviation.", True),
        "visits": {
            "oneOf": [
                {"type": "null"},
                _list(_text("Visit code.", longest=64, shortest=1), "Codes.", fewest=1),
            ],
            "default": None,
            "description": "Codes of the visits that have this series; null for all.",
        },
        "count": _COUNT,
        "match": _list(
            {"$ref": "#/$defs/match_entry"},
            "Conditions that recognise the series; all have to hold. Empty: every series of the modality.",
        ),
        "rules": _list({"$ref": "#/$defs/rule"}, "What the parameters have to be."),
        "exempt": _list(
            {"$ref": "#/$defs/exemption"},
            "Scanners that need no rule for a parameter which has rules for other scanners.",
        ),
        "completeness": _COMPLETENESS,
    },
    ["key", "title", "modality", "match", "rules"],
    "One series that the protocol expects.",
)

_APPLIES_TO = {
    **_object(
        {
            "manufacturer": _list(
                _text("Manufacturer.", shortest=1), "Any of these; aliases are known.", fewest=1
            ),
            "model": _list(_text("Model.", shortest=1), "Any of these models.", fewest=1),
            "model_pattern": _PATTERN,
            "field_strength": _object(
                {
                    "min": {"type": "number", "exclusiveMinimum": 0, "description": "Lowest, in tesla."},
                    "max": {"type": "number", "exclusiveMinimum": 0, "description": "Highest, in tesla."},
                },
                [],
                "MagneticFieldStrength in tesla, bounds included.",
            ),
            "software_pattern": _PATTERN,
        },
        [],
        "Scanners the entry is for; all criteria have to hold. Not evaluable where the header lacks one.",
    ),
    "minProperties": 1,
}

PROTOCOL_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:hub:schema:protocol:1",
    "title": "Acquisition protocol",
    **_object(
        {
            "schema": {"const": SCHEMA_NAME, "description": "Name and version of this form."},
            "name": {"type": "string", "pattern": _KEY, "description": "Short name of the protocol."},
            "title": _text("Title for people.", longest=200, shortest=1),
            "description": _text("What the protocol is for.", longest=5000),
            "sources": _list(
                _text("A publication, guidance or header the values come from.", shortest=1), "Sources."
            ),
            "series": _list({"$ref": "#/$defs/series"}, "The expected series.", fewest=1, most=200),
        },
        ["schema", "name", "title", "series"],
        "Expected series of a trial's visits with the rules for their acquisition parameters.",
    ),
    "$defs": {
        "series": _SERIES,
        "applies_to": _APPLIES_TO,
        "rule": {
            "description": "What one parameter has to be.",
            "oneOf": _kind_schemas(_RULE_PROPERTIES, ["id"], KINDS),
        },
        "condition": {
            "description": "A comparison that recognises a series; a value not recorded never satisfies it.",
            "oneOf": _kind_schemas({"negate": _NEGATE}, [], CONDITION_KINDS),
        },
        "match_entry": {
            "description": "A condition, or alternatives of which one has to hold.",
            "oneOf": [
                {"$ref": "#/$defs/condition"},
                _object(
                    {
                        "any_of": _list(
                            {"$ref": "#/$defs/alternative"}, "The alternatives.", fewest=2, most=50
                        )
                    },
                    ["any_of"],
                    "Alternatives of which one has to hold.",
                ),
            ],
        },
        "alternative": {
            "description": "A condition, or conditions that hold together.",
            "oneOf": [
                {"$ref": "#/$defs/condition"},
                _object(
                    {"all_of": _list({"$ref": "#/$defs/condition"}, "Conditions.", fewest=1, most=50)},
                    ["all_of"],
                    "Conditions that hold together.",
                ),
            ],
        },
        "exemption": _object(
            {
                "parameter": _PARAMETER,
                "applies_to": {"$ref": "#/$defs/applies_to"},
                "reason": _text("Why these scanners need no rule.", shortest=1),
            },
            ["parameter", "applies_to", "reason"],
            "A stated decision that the named scanners need no rule for this parameter.",
        ),
    },
}
