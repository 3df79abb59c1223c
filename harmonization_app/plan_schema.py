"""The JSON Schema of a harmonization plan."""

from __future__ import annotations

from typing import Any

SCHEMA_NAME = "hub.harmonization-plan/1"

_PARAMETERS = {"type": "object", "description": "Parameters of the algorithm; its schema says which"}

_ANALYSIS_PLAN: dict[str, Any] = {
    "description": "Where the statistical analysis plan says this: a sentence, or document, version and section",
    "oneOf": [
        {"type": "string"},
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["document", "version", "section"],
            "properties": {
                "document": {"type": "string", "minLength": 1},
                "version": {"type": "string", "minLength": 1},
                "section": {"type": "string", "minLength": 1},
                "sha256": {
                    "type": "string",
                    "pattern": "^[0-9a-f]{64}$",
                    "description": "Digest of the document's file",
                },
            },
        },
    ],
}

_EXCLUDE_ROWS: dict[str, Any] = {
    "type": "array",
    "description": "Rows left out, each subject|visit with the reason",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["row", "reason"],
        "properties": {"row": {"type": "string"}, "reason": {"type": "string", "minLength": 3}},
    },
}

_IMAGE_ROWS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "description": "What becomes of rows whose images depart from the protocol or failed QC",
    "properties": {
        "deviant": {
            "enum": ["keep", "exclude"],
            "description": "Rows with an open deviation, or with images that could not be judged",
        },
        "qc_failed": {"enum": ["keep", "exclude"], "description": "Rows with an image that failed QC"},
        "series": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "uniqueItems": True,
            "description": "Keys of the expected series that the features come from; absent: every expected one",
        },
    },
}

_SENSITIVITY: dict[str, Any] = {
    "type": "array",
    "description": "Analyses that run beside the main one",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind"],
        "properties": {
            "kind": {"enum": ["unharmonized", "leave_one_batch_out", "algorithm"]},
            "algorithm": {"type": "string", "description": "For the kind algorithm: its identifier"},
            "parameters": {
                "type": "object",
                "description": "For the kind algorithm: what differs from the plan's own parameters",
            },
        },
        "if": {"properties": {"kind": {"const": "algorithm"}}},
        "then": {"required": ["algorithm"]},
    },
}

_PLAUSIBLE_RANGES: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "description": "By feature or unit: least and greatest value that can be true, null where open",
    "propertyNames": {"minLength": 1},
    "additionalProperties": {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": ["number", "null"]},
    },
}

PLAN_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:hub:schema:harmonization-plan:1",
    "title": "Harmonization plan",
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "name", "title", "algorithm", "batch", "parameters"],
    "properties": {
        "schema": {"const": SCHEMA_NAME},
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,79}$"},
        "title": {"type": "string", "minLength": 1, "maxLength": 300},
        "algorithm": {"type": "string", "description": "Identifier of the algorithm, for example combat"},
        "batch": {
            "type": "string",
            "minLength": 1,
            "description": "The column of the feature set that names the batch of each row",
        },
        "analysis_plan": _ANALYSIS_PLAN,
        "rationale": {"type": "string"},
        "exclude_rows": _EXCLUDE_ROWS,
        "image_rows": _IMAGE_ROWS,
        "plausible_ranges": _PLAUSIBLE_RANGES,
        "scanner_changes": {
            "enum": ["split", "keep"],
            "description": "Whether a change of a scanner's software inside a batch begins a new batch",
        },
        "blinded": {
            "type": "boolean",
            "default": True,
            "description": "No column may tell the treatment arm; false needs a rationale",
        },
        "calibration": {
            "type": "object",
            "additionalProperties": False,
            "required": ["parameters"],
            "description": "Phantom calibration before the algorithm",
            "properties": {"parameters": {"type": "object"}},
        },
        "sensitivity": _SENSITIVITY,
        "parameters": _PARAMETERS,
    },
}
