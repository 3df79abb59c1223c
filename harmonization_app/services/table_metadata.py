"""What a table of measurements does not say of itself: units and pools of its features, kinds of its covariates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harmonization_app.json_values import infinite_numbers, unkept_texts
from hub.core.errors import InvalidInput

KINDS = ("continuous", "categorical")


@dataclass(frozen=True)
class TableMetadata:
    """Units and pools by feature, covariates, further columns that are no features, and the features, if named."""

    units: Mapping[str, str]
    pools: Mapping[str, str]
    covariates: tuple[Mapping[str, Any], ...]
    other: tuple[str, ...]
    features: tuple[str, ...]

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> TableMetadata:
        """Return the parsed metadata. Raises InvalidInput naming the field at fault."""
        for path, message in (*unkept_texts(given), *infinite_numbers(given)):
            raise _wrong(".".join(str(step) for step in path), message)
        columns = _named(given, "columns")
        covariates = _named(given, "covariates")
        other = given.get("metadata", [])
        if not isinstance(other, list) or not all(isinstance(name, str) for name in other):
            raise _wrong("metadata", "must be a list of column names")
        batch = given.get("batch") or ""
        if not isinstance(batch, str):
            raise _wrong("batch", "must be the name of a column")
        for index, item in enumerate(covariates):
            if item.get("kind", KINDS[0]) not in KINDS:
                raise _wrong(f"covariates[{index}].kind", f"must be one of: {', '.join(KINDS)}")
        units = given.get("units", {})
        if not isinstance(units, dict) or not all(isinstance(unit, str) for unit in units.values()):
            raise _wrong("units", "must be an object of units (texts) by feature")
        return cls(
            units={**units, **_texts(columns, "unit")},
            pools=_texts(columns, "pool"),
            covariates=tuple(covariates),
            other=tuple(dict.fromkeys([*other, *([batch] if batch else [])])),
            features=tuple(item["name"] for item in columns),
        )


def _named(given: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = given.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) and "name" in item for item in items):
        raise _wrong(key, "must be a list of objects, each with a name")
    for index, item in enumerate(items):
        if not isinstance(item["name"], str) or not item["name"].strip():
            raise _wrong(f"{key}[{index}].name", "must be a text")
    return items


def _texts(items: list[dict[str, Any]], key: str) -> dict[str, str]:
    """Return one text of each object by name, empty where it has none."""
    found: dict[str, str] = {}
    for index, item in enumerate(items):
        text = item.get(key) or ""
        if not isinstance(text, str):
            raise _wrong(f"columns[{index}].{key}", "must be a text")
        found[item["name"]] = text
    return found


def _wrong(field: str, message: str) -> InvalidInput:
    return InvalidInput(
        f"metadata.{field} {message}.", errors=[{"field": f"metadata.{field}", "message": message}]
    )
