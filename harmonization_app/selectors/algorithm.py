"""Reading algorithms: what a method does, its parameters as a table, who signed a version."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harmonization_app.algorithms.base import Algorithm
from harmonization_app.algorithms.registry import ALGORITHMS, source_digest
from harmonization_app.models import AlgorithmVersion
from hub.core.models import ElectronicSignature

CAPABILITIES = {
    "missing_values": "Takes missing values",
    "reference_batch": "Brings all batches to a reference batch",
    "train_apply": "Corrects new scans of known batches by the frozen model",
    "new_batch": "Adds a batch to a frozen model",
    "nonparametric": "Non-parametric priors",
    "mean_only": "Mean-only correction",
    "without_eb": "Without empirical Bayes",
    "longitudinal": "Models change within subjects over time",
}
NEEDS_REPEATS = "Needs subjects scanned more than once"


@dataclass(frozen=True)
class ParameterRow:
    """One parameter: its name with dots for what lies within, what it may be, its default, what it means."""

    name: str
    allowed: str
    default: str
    description: str


def description_of(algorithm: Algorithm) -> list[str]:
    """Return what the method does, in paragraphs: its summary, then method, source and measured agreement."""
    summary = inspect.getdoc(type(algorithm)) or algorithm.title
    module = inspect.getdoc(sys.modules[type(algorithm).__module__]) or ""
    paragraphs = [" ".join(part.split()) for text in (summary, module) for part in text.split("\n\n")]
    if algorithm.limits:
        paragraphs = [part for part in paragraphs if not part.startswith("Limits:")]
    return [part for part in dict.fromkeys(paragraphs) if part]


def capabilities_of(algorithm: Algorithm) -> list[tuple[str, bool]]:
    """Return each capability in words and whether the method has it, then what it needs of the data."""
    able = [(title, bool(getattr(algorithm.capabilities, name))) for name, title in CAPABILITIES.items()]
    return [*able, (NEEDS_REPEATS, "subject" in algorithm.parameters_schema().get("required", ()))]


def parameter_rows(schema: Mapping[str, Any]) -> list[ParameterRow]:
    """Return the parameters of a JSON Schema as rows; objects are opened, fixed values are said to be fixed."""
    return list(_rows(schema, ""))


def _rows(schema: Mapping[str, Any], prefix: str) -> Iterator[ParameterRow]:
    for name, item in schema.get("properties", {}).items():
        inner = item.get("properties")
        if inner:
            yield from _rows(item, f"{prefix}{name}.")
        elif inner is None or item.get("additionalProperties") is not False:
            default = "required" if name in schema.get("required", ()) else _said(item.get("default"))
            yield ParameterRow(f"{prefix}{name}", _allowed(item), default, item.get("description", ""))


def _allowed(item: Mapping[str, Any]) -> str:
    if "const" in item:
        return f"fixed: {_said(item['const'])}"
    if "enum" in item:
        return " or ".join(_said(value) for value in item["enum"])
    kinds = item.get("type", "any value")
    words = [str(kind) for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    if words == ["array"]:
        inner = item.get("items", {})
        fields = ", ".join(inner.get("properties", {}))
        return f"list of {{{fields}}}" if fields else f"list of {inner.get('type', 'value')}s"
    bounds = [
        f"{sign} {item[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in item
    ]
    return " ".join([" or ".join(words), *bounds])


def _said(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def is_present(row: AlgorithmVersion) -> bool:
    """Whether the code of this version is the code installed here."""
    return row.algorithm in ALGORITHMS and source_digest(ALGORITHMS[row.algorithm]) == row.code_digest


def signatures_of(row: AlgorithmVersion) -> list[tuple[str, ElectronicSignature | None]]:
    """Return the signatures that a lock of this version needs, in order; None where one is still open."""
    titles = ("First signature", "Second signature")[: row.signatures_required]
    return list(zip(titles, (row.signature, row.second_signature), strict=False))


def has_signed(user: Any, row: AlgorithmVersion) -> bool:
    return any(
        signature is not None and signature.signer_id == user.pk for _, signature in signatures_of(row)
    )
