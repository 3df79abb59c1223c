"""The published JSON Schema (2020-12) of an acquisition protocol."""

from __future__ import annotations

from typing import Any

from qc_app.protocol.kind_schema import (
    CONDITION_KINDS,
    KEY,
    KINDS,
    NEGATE,
    PARAMETER,
    PATTERN,
    RULE_PROPERTIES,
    SEVERITY,
    flag,
    kind_schemas,
    list_of,
    object_of,
    text,
)
from qc_app.protocol.model import SCHEMA_NAME

__all__ = ["CONDITION_KINDS", "KINDS", "PROTOCOL_SCHEMA", "kind_schema"]

_COUNT = object_of(
    {
        "min": {"type": "integer", "minimum": 0, "default": 1, "description": "Fewest series per visit."},
        "max": {
            "type": ["integer", "null"],
            "minimum": 1,
            "default": 1,
            "description": "Most series per visit; null for no limit.",
        },
        "severity": SEVERITY,
    },
    [],
    "How many such series a visit has. An optional series may be left out; if it is sent, this holds.",
)

_COMPLETENESS = object_of(
    {
        "require_geometry": flag("Slice positions have to be recorded and usable.", True),
        "allow_gaps": flag("Slices may be missing between others.", False),
        "allow_irregular_spacing": flag("Distances between neighbouring slices may differ.", False),
        "allow_duplicate_positions": flag("A slice position may occur twice in one volume.", False),
        "allow_several_orientations": flag("Slices need not be parallel (localizers).", False),
        "severity": SEVERITY,
    },
    [],
    "What the slice geometry of a whole series may show. Slices missing at an end need a count rule.",
)

_SERIES = object_of(
    {
        "key": {
            "type": "string",
            "pattern": KEY,
            "description": "Name of the series, unique in the protocol.",
        },
        "title": text("Name of the series for people.", longest=200, shortest=1),
        "modality": {
            "type": "string",
            "pattern": "^[A-Z]{2,16}$",
            "description": "Modality (0008,0060); a series of another modality never matches.",
        },
        "required": flag("A visit without this series is a deviation.", True),
        "visits": {
            "oneOf": [
                {"type": "null"},
                list_of(text("Visit code.", longest=64, shortest=1), "Codes.", fewest=1),
            ],
            "default": None,
            "description": "Codes of the visits that have this series; null for all.",
        },
        "count": _COUNT,
        "match": list_of(
            {"$ref": "#/$defs/match_entry"},
            "Conditions that recognise the series; all have to hold. Empty: every series of the modality.",
        ),
        "rules": list_of({"$ref": "#/$defs/rule"}, "What the parameters have to be."),
        "exempt": list_of(
            {"$ref": "#/$defs/exemption"},
            "Scanners that need no rule for a parameter which has rules for other scanners.",
        ),
        "completeness": _COMPLETENESS,
    },
    ["key", "title", "modality", "match", "rules"],
    "One series that the protocol expects.",
)

_APPLIES_TO = {
    **object_of(
        {
            "manufacturer": list_of(
                text("Manufacturer.", shortest=1), "Any of these; aliases are known.", fewest=1
            ),
            "model": list_of(text("Model.", shortest=1), "Any of these models.", fewest=1),
            "model_pattern": PATTERN,
            "field_strength": object_of(
                {
                    "min": {"type": "number", "exclusiveMinimum": 0, "description": "Lowest, in tesla."},
                    "max": {"type": "number", "exclusiveMinimum": 0, "description": "Highest, in tesla."},
                },
                [],
                "MagneticFieldStrength in tesla, bounds included.",
            ),
            "software_pattern": PATTERN,
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
    **object_of(
        {
            "schema": {"const": SCHEMA_NAME, "description": "Name and version of this form."},
            "name": {"type": "string", "pattern": KEY, "description": "Short name of the protocol."},
            "title": text("Title for people.", longest=200, shortest=1),
            "description": text("What the protocol is for.", longest=5000),
            "sources": list_of(
                text("A publication, guidance or header the values come from.", shortest=1), "Sources."
            ),
            "series": list_of({"$ref": "#/$defs/series"}, "The expected series.", fewest=1, most=200),
        },
        ["schema", "name", "title", "series"],
        "Expected series of a trial's visits with the rules for their acquisition parameters.",
    ),
    "$defs": {
        "series": _SERIES,
        "applies_to": _APPLIES_TO,
        "rule": {
            "description": "What one parameter has to be.",
            "oneOf": kind_schemas(RULE_PROPERTIES, ["id"], KINDS),
        },
        "condition": {
            "description": "A comparison that recognises a series; a value not recorded never satisfies it.",
            "oneOf": kind_schemas({"negate": NEGATE}, [], CONDITION_KINDS),
        },
        "match_entry": {
            "description": "A condition, or alternatives of which one has to hold.",
            "oneOf": [
                {"$ref": "#/$defs/condition"},
                object_of(
                    {
                        "any_of": list_of(
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
                object_of(
                    {"all_of": list_of({"$ref": "#/$defs/condition"}, "Conditions.", fewest=1, most=50)},
                    ["all_of"],
                    "Conditions that hold together.",
                ),
            ],
        },
        "exemption": object_of(
            {
                "parameter": PARAMETER,
                "applies_to": {"$ref": "#/$defs/applies_to"},
                "reason": text("Why these scanners need no rule.", shortest=1),
            },
            ["parameter", "applies_to", "reason"],
            "A stated decision that the named scanners need no rule for this parameter.",
        ),
    },
}


def kind_schema(kind: str, *, condition: bool) -> dict[str, Any]:
    """Return the schema of one rule or condition of this kind, for errors that name the fault itself."""
    extra = {"negate": NEGATE} if condition else RULE_PROPERTIES
    schema = kind_schemas(extra, [] if condition else ["id"], (kind,))[0]
    return {**schema, "$defs": PROTOCOL_SCHEMA["$defs"]}
