"""Parameters of one method read through its own schema: what it does not know is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from harmonization_app.algorithms.base import Finding, HarmonizationRefused
from harmonization_app.algorithms.specification import Specification


def check_parameters(schema: Mapping[str, Any], specification: Specification) -> list[Finding]:
    """Return a stop for each parameter of `specification` that the method's `schema` does not allow."""
    validator = Draft202012Validator(dict(schema))
    findings = []
    for error in sorted(validator.iter_errors(specification.to_json()), key=lambda item: item.json_path):
        name = error.json_path.removeprefix("$.")
        if error.validator == "const":
            message = (
                f"This method knows {name} = {error.validator_value!r} only; the plan has {error.instance!r}."
            )
        else:
            message = f"The parameter {name} does not suit this method: {error.message}."
        findings.append(Finding("parameter_not_supported", "stop", message, columns=(name,)))
    return findings


def read_options(schema: Mapping[str, Any], specification: Specification) -> dict[str, Any]:
    """Return the method's own options with every default written out. Raises HarmonizationRefused."""
    findings = check_parameters(schema, specification)
    if findings:
        raise HarmonizationRefused(findings)
    properties = schema["properties"]["options"]["properties"]
    defaults = {name: item["default"] for name, item in properties.items() if "default" in item}
    return {**defaults, **specification.options}
