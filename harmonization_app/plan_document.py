"""The document of a harmonization plan: what a statistician fixes before the data are locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.specification import Specification
from hub.core.errors import InvalidInput

SCHEMA_NAME = "hub.harmonization-plan/1"

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
        "analysis_plan": {"type": "string", "description": "Where the statistical analysis plan says this"},
        "rationale": {"type": "string"},
        "exclude_rows": {
            "type": "array",
            "description": "Rows left out, each subject/visit with the reason",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["row", "reason"],
                "properties": {"row": {"type": "string"}, "reason": {"type": "string", "minLength": 3}},
            },
        },
        "parameters": {"type": "object", "description": "Parameters of the algorithm; its schema says which"},
    },
}


class PlanInvalid(InvalidInput):
    code = "plan_invalid"
    title = "The harmonization plan is not valid"


@dataclass(frozen=True)
class PlanDocument:
    """A parsed plan; `specification` has every default written out."""

    name: str
    title: str
    algorithm: str
    batch: str
    exclude_rows: Mapping[str, str]
    specification: Specification


def parse_plan(document: Mapping[str, Any]) -> PlanDocument:
    """Return the parsed document. Raises PlanInvalid with a JSON pointer and a sentence for each fault."""
    validator = Draft202012Validator(PLAN_SCHEMA)
    errors = [
        {"field": "/" + "/".join(map(str, error.absolute_path)), "message": error.message}
        for error in sorted(validator.iter_errors(dict(document)), key=lambda item: list(map(str, item.path)))
    ]
    if not errors and document["algorithm"] not in ALGORITHMS:
        known = ", ".join(sorted(ALGORITHMS))
        errors.append({"field": "/algorithm", "message": f"is not an algorithm here; use one of: {known}"})
    specification = None
    if not errors:
        try:
            specification = Specification.from_json(document["parameters"])
        except InvalidInput as error:
            errors = [{**item, "field": f"/parameters {item['field']}"} for item in error.errors] or [
                {"field": "/parameters", "message": error.detail}
            ]
    if errors or specification is None:
        raise PlanInvalid("Correct the plan; each fault is named in errors.", errors=errors)
    return PlanDocument(
        name=document["name"],
        title=document["title"],
        algorithm=document["algorithm"],
        batch=document["batch"],
        exclude_rows={item["row"]: item["reason"] for item in document.get("exclude_rows", ())},
        specification=specification,
    )
