"""The rule kinds as JSON Schema: what each compares and the settings it takes."""

from __future__ import annotations

from typing import Any

from qc_app.protocol.model import COUNTABLE, SEVERITIES
from qc_app.protocol.patterns import MAX_PATTERN_CHARACTERS

KEY = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def text(description: str, *, longest: int = 2000, shortest: int = 0) -> dict[str, Any]:
    return {"type": "string", "minLength": shortest, "maxLength": longest, "description": description}


def flag(description: str, default: bool) -> dict[str, Any]:
    return {"type": "boolean", "default": default, "description": description}


def list_of(items: dict[str, Any], description: str, *, fewest: int = 0, most: int = 500) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": fewest, "maxItems": most, "description": description}


def object_of(properties: dict[str, Any], required: list[str], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


SCALAR: dict[str, Any] = {"type": ["number", "string", "boolean"]}
SEVERITY: dict[str, Any] = {
    "enum": list(SEVERITIES),
    "default": "major",
    "description": "How much a departure matters; reported with the verdict, it never changes the outcome.",
}
PATTERN = text(
    "Regular expression that the whole text has to match, ignoring case; write .* for what may stand around. "
    "Look-around and back-references are not available.",
    longest=MAX_PATTERN_CHARACTERS,
    shortest=1,
)
TOLERANCE: dict[str, Any] = {"type": "number", "minimum": 0}
UNIT = text("Unit of all numbers of this entry; has to be the parameter's unit in the catalogue.", longest=20)
PARAMETER = text(
    "Keyword of the acquisition parameter in the catalogue, as in DICOM.", longest=64, shortest=1
)

KIND_SETTINGS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "equals": (
        "The value is this one: numbers but for float noise (1e-6, relative), text but for case, space and "
        "manufacturers' aliases, multi-valued text in any order.",
        {
            "value": {
                "oneOf": [SCALAR, list_of(SCALAR, "Value of a multi-valued parameter.", fewest=1)],
                "description": "The wanted value.",
            }
        },
        ["value"],
    ),
    "one_of": (
        "The value, or each part of a multi-valued one, is in this list.",
        {
            "values": list_of(SCALAR, "The allowed values, all text or all numbers.", fewest=1),
            "tolerance": {**TOLERANCE, "description": "Absolute tolerance around each allowed number."},
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
                **TOLERANCE,
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
                **TOLERANCE,
                "description": "Largest allowed difference in % of the value.",
            },
        },
        ["value", "tolerance_percent"],
    ),
    "vector": (
        "A list of as many numbers, each within its tolerance.",
        {
            "value": list_of({"type": "number"}, "The wanted numbers in order.", fewest=1),
            "tolerance": {
                "oneOf": [TOLERANCE, list_of(TOLERANCE, "One tolerance per number.", fewest=1)],
                "description": "Largest allowed difference: one for all numbers, or one for each.",
            },
        },
        ["value", "tolerance"],
    ),
    "regex": ("The text, or one part of a multi-valued text, matches.", {"pattern": PATTERN}, ["pattern"]),
    "contains": (
        "A multi-valued text such as ImageType holds, or does not hold, these words.",
        {
            "all": list_of(text("A word."), "Words that all have to be there.", fewest=1),
            "any": list_of(text("A word."), "Words of which at least one has to be there.", fewest=1),
            "none": list_of(text("A word."), "Words that must not be there.", fewest=1),
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

KINDS = tuple(KIND_SETTINGS)

RULE_PROPERTIES: dict[str, Any] = {
    "id": {
        "type": "string",
        "pattern": KEY,
        "description": "Name of the rule, unique in its series; verdicts and waivers refer to it.",
    },
    "severity": SEVERITY,
    "applies_to": {"$ref": "#/$defs/applies_to"},
    "allow_missing": flag("A value that is not recorded is compliant.", False),
    "allow_varying": flag("Values may differ inside the series; each of them still has to comply.", False),
    "note": text("Why the rule is as it is, for people."),
    "action": text("What the site shall do about a departure, in place of the hub's own words."),
}


def kind_schemas(extra: dict[str, Any], required: list[str], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    schemas = []
    for kind in kinds:
        description, arguments, needed = KIND_SETTINGS[kind]
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
            properties["parameter"] = PARAMETER
            properties["unit"] = UNIT
            names.append("parameter")
        schemas.append(object_of(properties, names, description))
    return schemas


CONDITION_KINDS = tuple(kind for kind in KINDS if kind not in ("count", "absent"))
NEGATE = flag("A value has to be recorded and must not satisfy the comparison.", False)
