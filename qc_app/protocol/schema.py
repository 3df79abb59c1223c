"""Reading a protocol document: JSON Schema, checks of meaning, canonical form and digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from hub.core.canonical import digest
from hub.core.errors import InvalidInput
from qc_app.protocol.building import build_spec, canonical_document
from qc_app.protocol.document_schema import PROTOCOL_SCHEMA, kind_schema
from qc_app.protocol.kind_schema import CONDITION_KINDS, KINDS
from qc_app.protocol.model import CatalogueEntry, ProtocolSpec
from qc_app.protocol.semantics import check_meaning, pointer
from qc_app.protocol.values import is_number
from sites_app.dicom.catalogue import PARAMETERS

__all__ = ["PROTOCOL_SCHEMA", "ProtocolInvalid", "parse_protocol"]

MAX_ERRORS = 100
MAX_DEPTH = 32


class ProtocolInvalid(InvalidInput):
    """The document is no valid protocol. `problems` holds (JSON pointer, sentence) for each fault."""

    code = "protocol_invalid"
    title = "The protocol is not valid"

    def __init__(self, errors: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(errors)
        number = len(self.problems)
        detail = (
            f"The protocol has {number} fault{'' if number == 1 else 's'}; correct each and send it again."
        )
        super().__init__(
            detail, errors=[{"field": field, "message": message} for field, message in self.problems]
        )


def parse_protocol(
    document: Any,
    catalogue: Mapping[str, CatalogueEntry] | None = None,
    visit_codes: Iterable[str] | None = None,
) -> ProtocolSpec:
    """Return the protocol of a JSON document, in canonical form with its digest.

    Omitted settings take their defaults before the digest is made, so that writing a default out or leaving
    it out is one protocol. `catalogue` maps keywords to parameters (default: the hub's); with `visit_codes`,
    visits outside them are refused.

    Raises ProtocolInvalid with every fault found.
    """
    entries: Mapping[str, CatalogueEntry] = PARAMETERS if catalogue is None else catalogue
    faults = _unusable(document) or _schema_faults(document)
    if faults:
        raise ProtocolInvalid(faults[:MAX_ERRORS])
    canonical = canonical_document(document, entries)
    faults = check_meaning(canonical, entries, None if visit_codes is None else frozenset(visit_codes))
    if faults:
        raise ProtocolInvalid(faults[:MAX_ERRORS])
    return build_spec(canonical, entries, digest(canonical))


def _unusable(document: Any) -> list[tuple[str, str]]:
    """Return the faults that make a document unfit for any check: depth, numbers that are none."""
    faults: list[tuple[str, str]] = []
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(document, ())]
    while waiting:
        value, path = waiting.pop()
        if len(path) > MAX_DEPTH:
            return [(pointer(path), f"The document is nested more than {MAX_DEPTH} deep; write it flatter.")]
        if isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value):
            faults.append((pointer(path), "The number is not finite or too large; write a finite number."))
        if isinstance(value, Mapping):
            waiting.extend((item, (*path, key)) for key, item in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((item, (*path, index)) for index, item in enumerate(value))
    return faults


@lru_cache(maxsize=64)
def _validator(kind: str, condition: bool) -> Draft202012Validator:
    return Draft202012Validator(kind_schema(kind, condition=condition) if kind else PROTOCOL_SCHEMA)


def _schema_faults(document: Any) -> list[tuple[str, str]]:
    faults: dict[tuple[str, str], None] = {}
    for error in _validator("", False).iter_errors(document):
        for fault in _explain(error, tuple(error.absolute_path)):
            faults[fault] = None
    return sorted(faults)


def _explain(error: ValidationError, path: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Turn a failed oneOf over the kinds into the faults of the kind that was meant."""
    if error.validator != "oneOf":
        return [(pointer(path), _sentence(error))]
    value = error.instance
    if not isinstance(value, Mapping):
        return [(pointer(path), _one_of_sentence(error))]
    if "rules" in path and path[-2:-1] == ("rules",):
        return _explain_kind(value, path, condition=False)
    if "match" not in path:
        return [(pointer(path), _one_of_sentence(error))]
    for group in ("any_of", "all_of"):
        if group in value and "kind" not in value:
            return _explain_group(value, group, path)
    return _explain_kind(value, path, condition=True)


def _explain_group(value: Mapping[str, Any], group: str, path: tuple[Any, ...]) -> list[tuple[str, str]]:
    entries = value[group]
    others = sorted(set(value) - {group})
    if others:
        return [(pointer((*path, others[0])), f"Beside {group} nothing else is allowed; remove it.")]
    if not isinstance(entries, list) or len(entries) < (2 if group == "any_of" else 1):
        return [(pointer((*path, group)), f"{group} takes a list of conditions; an any_of at least two.")]
    faults = []
    for index, entry in enumerate(entries):
        inner = (*path, group, index)
        if isinstance(entry, Mapping) and "all_of" in entry and group == "any_of":
            faults += _explain_group(entry, "all_of", inner)
        else:
            faults += _explain_kind(entry, inner, condition=True)
    return faults


def _explain_kind(value: Any, path: tuple[Any, ...], *, condition: bool) -> list[tuple[str, str]]:
    kinds = CONDITION_KINDS if condition else KINDS
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        return [(pointer((*path, "kind")), f"Say the kind of comparison; it is one of {', '.join(kinds)}.")]
    return [
        (pointer((*path, *error.absolute_path)), _sentence(error))
        for error in _validator(kind, condition).iter_errors(value)
    ]


def _sentence(error: ValidationError) -> str:
    """Return jsonschema's finding as a sentence that says what to do."""
    value, limit = error.instance, error.validator_value
    shown = f"{value!r:.80}"
    sentences: dict[str, Callable[[], str]] = {
        "additionalProperties": lambda: (
            f"{_first_unknown(error)} is no setting here; remove it or correct its spelling "
            f"(known: {', '.join(sorted(error.schema.get('properties', {})))})."
        ),
        "required": lambda: f"{error.message.split(' is a')[0]} is missing; add it.",
        "const": lambda: f"{shown} is not allowed; write {limit!r}.",
        "enum": lambda: f"{shown} is not allowed; write one of {', '.join(map(str, limit))}.",
        "type": lambda: f"{shown} has the wrong type; write {_type_words(limit)}.",
        "minimum": lambda: f"{shown} is too small; write at least {limit}.",
        "exclusiveMinimum": lambda: f"{shown} is too small; write more than {limit}.",
        "minLength": lambda: "The text is empty; write it.",
        "maxLength": lambda: f"The text has {len(value)} characters; write at most {limit}.",
        "minItems": lambda: f"The list has {len(value)} entries; write at least {limit}.",
        "maxItems": lambda: f"The list has {len(value)} entries; write at most {limit}.",
        "minProperties": lambda: "The entry says nothing; name at least one criterion or remove it.",
        "pattern": lambda: f"{shown} is no valid name here; use the form {limit}.",
        "oneOf": lambda: _one_of_sentence(error),
    }
    return sentences.get(str(error.validator), lambda: f"{error.message[:200]}; correct it.")()


def _first_unknown(error: ValidationError) -> str:
    known = error.schema.get("properties", {})
    return repr(next(name for name in error.instance if name not in known))


def _type_words(types: Any) -> str:
    return " or ".join(types) if isinstance(types, list) else f"a value of type {types}"


def _one_of_sentence(error: ValidationError) -> str:
    forms = error.schema.get("description", "see the schema")
    return f"{error.instance!r:.80} fits none of the allowed forms: {forms}"
