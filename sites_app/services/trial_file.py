"""Trial files: create or update a whole trial from one YAML or JSON document, all of it or nothing.

Each app registers the sections it owns (`register_section`); they are applied in the order of `order`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml
from django.core.exceptions import ValidationError
from django.db import transaction

from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import HubError
from sites_app.models import Trial
from sites_app.permissions import can_administer


class TrialFileInvalid(HubError):
    code = "trial_file_invalid"
    title = "The trial file is not valid"
    http_status = 400


@dataclass(frozen=True)
class Change:
    """One difference between the file and the hub: `kind` is created or updated."""

    kind: str
    what: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class SectionStopped(Exception):
    """The section's fault is noted; nothing after it can be applied."""


class Section:
    """Collects the errors and changes of one section; errors carry the path inside the document."""

    def __init__(self, actor: Any, trial: Trial, path: str) -> None:
        self.actor = actor
        self.trial = trial
        self.path = path
        self.errors: list[tuple[str, str]] = []
        self.changes: list[Change] = []
        self.where = ""
        self._seen: set[tuple[str, str]] = set()

    def error(self, where: str, message: str) -> None:
        self.errors.append((f"{self.path}{where}", message))

    def fields_of(
        self, item: Any, where: str, required: Mapping[str, type], optional: Mapping[str, type]
    ) -> dict[str, Any] | None:
        """Return the item's fields checked for presence, type and misspelling, or None with errors noted."""
        if not isinstance(item, dict):
            self.error(where, "must be an object with fields")
            return None
        before = len(self.errors)
        known = {**required, **optional}
        for name in item:
            if name not in known:
                self.error(f"{where}/{name}", f"is not a field here; use one of: {', '.join(known)}")
        for name, kind in known.items():
            value = item.get(name)
            if value is None and name in required:
                self.error(where, f"needs the field “{name}”")
            elif value is not None and not _is_kind(value, kind):
                self.error(f"{where}/{name}", f"must be {_KIND_NAMES[kind]}, not {type(value).__name__}")
        return dict(item) if len(self.errors) == before else None

    def save(self, model: Any, identity: Mapping[str, Any], values: Mapping[str, Any], what: str) -> Any:
        """Create or update one row so that it has `values`; note and audit what changed.

        Raises SectionStopped, with the fault noted at the item in hand, where the same thing is in the section
        twice or a value does not fit its field.
        """
        self._require_once(model, identity, what)
        row = model.objects.filter(**identity).first()
        self._require_fitting(model(**identity, **values))
        if row is None:
            row = model.objects.create(**identity, **values)
            self._note("created", what, row, {}, {key: _plain(value) for key, value in values.items()})
            return row
        old = {key: _plain(getattr(row, key)) for key, value in values.items() if getattr(row, key) != value}
        if old:
            for key in old:
                setattr(row, key, values[key])
            row.save(update_fields=list(old))
            self._note("updated", what, row, old, {key: _plain(values[key]) for key in old})
        return row

    def _require_once(self, model: Any, identity: Mapping[str, Any], what: str) -> None:
        key = (model._meta.label, repr(sorted((name, str(value)) for name, value in identity.items())))
        if key in self._seen:
            self.error(self.where, f"has {what} for the second time; keep one of the two")
            raise SectionStopped
        self._seen.add(key)

    def _require_fitting(self, row: Any) -> None:
        """Check lengths, ranges and the form of codes as the model's fields state them."""
        relations = [field.name for field in row._meta.concrete_fields if field.is_relation]
        try:
            row.clean_fields(exclude=[*relations, "password"])
        except ValidationError as error:
            for name, messages in error.message_dict.items():
                self.error(self.where, f"{name.replace('_', ' ')}: {' '.join(messages)}")
            raise SectionStopped from error

    def changed(self, kind: str, what: str, fields: Mapping[str, Any]) -> None:
        """Note a change that a service of its own made and audited."""
        self.changes.append(Change(kind, what, fields))

    def _note(self, kind: str, what: str, row: Any, old: dict[str, Any], new: dict[str, Any]) -> None:
        self.changed(kind, what, new)
        record(
            actor=self.actor,
            action=f"{row._meta.model_name}.{kind}",
            obj=row,
            scope=self.trial.pk,
            old=old,
            new=new,
            reason="trial file",
        )


SectionHandler = Callable[[Section, Any], None]
_sections: dict[str, tuple[int, SectionHandler]] = {}
_KIND_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    object: "a value",
}


def register_section(name: str, handler: SectionHandler, *, order: int) -> None:
    """Let `handler(section, value)` apply the document's key `name`. Register in AppConfig.ready()."""
    _sections[name] = (order, handler)


def load_trial_file(content: str, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the document and the line of each path in it. Raises TrialFileInvalid naming file and line."""
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        document = _load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "not readable"
        raise TrialFileInvalid(f"{name}, line {line}: {problem}. The file must be YAML or JSON.") from error
    if not isinstance(document, dict) or node is None:
        raise TrialFileInvalid(f"{name}, line 1: the file must hold one object with the key “trial”.")
    lines: dict[str, int] = {}
    doubled = _collect_lines(node, "", lines)
    if doubled:
        path, line = doubled[0]
        raise TrialFileInvalid(f"{name}, line {line}: {path[1:].replace('/', '.')} is there twice; keep one.")
    return document, lines


def apply_trial(
    *, actor: Any, content: str, name: str, dry_run: bool = False
) -> tuple[Trial | None, list[Change]]:
    """Make the hub agree with the trial file and return what changed; with `dry_run` change nothing.

    Raises TrialFileInvalid with one entry in `errors` per fault (file, line, field, message); then nothing is
    applied.
    """
    document, lines = load_trial_file(content, name)
    unknown = [key for key in document if key not in _sections and key != "trial"]
    faults = [(f"/{key}", f"is not a section; use one of: trial, {', '.join(_sections)}") for key in unknown]
    with transaction.atomic():
        trial, section = _apply_trial_itself(actor, document)
        faults += section.errors
        changes = list(section.changes)
        if trial is not None:
            for key, (_, handler) in sorted(_sections.items(), key=lambda item: item[1][0]):
                if key in document and not faults:
                    part = Section(actor, trial, f"/{key}")
                    with suppress(SectionStopped):
                        handler(part, document[key])
                    faults += part.errors
                    changes += part.changes
        if faults:
            raise _invalid(name, lines, faults)
        if changes and not dry_run:
            record(
                actor=actor,
                action="trial_file.applied",
                obj=trial,
                new={"digest": digest(_plain(document)), "changes": len(changes)},
            )
        if dry_run:
            transaction.set_rollback(True)
    return (None if dry_run else trial), changes


def _apply_trial_itself(actor: Any, document: dict[str, Any]) -> tuple[Trial | None, Section]:
    section = Section(actor, Trial(), "/trial")
    given = section.fields_of(document.get("trial"), "", {"code": str, "title": str}, {})
    if given is None:
        return None, section
    trial = Trial.objects.filter(code=given["code"]).first()
    if actor is not None and not (actor.is_superuser or (trial and can_administer(actor, trial.pk))):
        section.error("", "may be applied only by an administrator of the trial")
        return None, section
    section.trial = trial or section.trial
    try:
        trial = section.save(
            Trial, {"code": given["code"]}, {"title": given["title"]}, f"trial {given['code']}"
        )
    except SectionStopped:
        return None, section
    return trial, section


def _invalid(name: str, lines: Mapping[str, int], faults: list[tuple[str, str]]) -> TrialFileInvalid:
    errors = [
        {
            "file": name,
            "line": _line(lines, path),
            "field": path.strip("/").replace("/", "."),
            "message": message,
        }
        for path, message in faults
    ]
    first = errors[0]
    return TrialFileInvalid(
        f"{name}, line {first['line']}, {first['field'] or 'document'}: {first['message']}."
        f" {len(errors)} fault(s) in all; nothing was applied.",
        errors=errors,
    )


def _line(lines: Mapping[str, int], path: str) -> int:
    while path and path not in lines:
        path = path.rpartition("/")[0]
    return lines.get(path, 1)


def _load(content: str) -> Any:
    """Return the document; JSON is read as JSON, since YAML takes its 1e-09 for text."""
    try:
        return json.loads(content)
    except ValueError:
        return yaml.safe_load(content)


def _collect_lines(node: Any, path: str, lines: dict[str, int]) -> list[tuple[str, int]]:
    """Note the line of each path, and return the paths (with line) that an object has more than once."""
    lines[path] = node.start_mark.line + 1
    doubled: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner, line = f"{path}/{key.value}", key.start_mark.line + 1
            doubled += [(inner, line)] if inner in lines else []
            doubled += _collect_lines(value, inner, lines)
            lines[inner] = line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            doubled += _collect_lines(value, f"{path}/{index}", lines)
    return doubled


def _is_kind(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _plain(value: Any) -> Any:
    if hasattr(value, "pk"):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
