"""What a site announced to send, compared with what arrived (ICH E6(R3) 4.2.5: reconciliation of transfers)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hub.core.errors import InvalidInput
from sites_app.ingest.names import load_names, plain_name, store_names
from sites_app.models import Submission, SubmissionFile, Upload

MOST_ENTRIES = 100_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One announced file."""

    name: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class ManifestProblem:
    """An announced file that is `missing` or arrived `different`; `position` counts from 1."""

    position: int
    code: str
    sha256: str


def parse_manifest(document: Any) -> list[ManifestEntry]:
    """Return the entries of [{name, sha256, size}]. Raises InvalidInput naming each wrong one."""
    if not isinstance(document, list):
        raise InvalidInput(
            "The manifest is not a list of {name, sha256, size}.",
            errors=[_error("manifest", "This is not a list.")],
        )
    if len(document) > MOST_ENTRIES:
        raise InvalidInput(f"The manifest names more than {MOST_ENTRIES:,} files. Make several submissions.")
    errors = [error for index, item in enumerate(document) for error in _entry_errors(index, item)]
    if errors:
        raise InvalidInput("Some entries of the manifest are not valid; see errors.", errors=errors[:50])
    return [
        ManifestEntry(item.get("name", ""), item["sha256"].lower(), item.get("size")) for item in document
    ]


def store_manifest(submission_id: UUID, entries: Sequence[ManifestEntry]) -> None:
    """Keep the announced names where the files' own names are kept."""
    if entries:
        store_names(submission_id, [entry.name for entry in entries])


def compare(submission: Submission) -> list[ManifestProblem]:
    """Return what was announced and did not arrive; a file whose name came with other content is `different`."""
    if not submission.manifest:
        return []
    uploads = list(Upload.objects.filter(submission=submission).values_list("pk", "sha256"))
    files = SubmissionFile.objects.filter(submission=submission).values_list("upload_id", "ordinal", "sha256")
    arrived = {sha256 for _, _, sha256 in files} | {sha256 for _, sha256 in uploads}
    names = {_base(name) for upload_id, _ in uploads for name in load_names(upload_id)}
    announced = load_names(submission.pk)
    problems = []
    for index, entry in enumerate(submission.manifest):
        if entry["sha256"] not in arrived:
            name = announced[index] if index < len(announced) else ""
            code = "different" if name and _base(plain_name(name)) in names else "missing"
            problems.append(ManifestProblem(index + 1, code, entry["sha256"]))
    return problems


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _entry_errors(index: int, item: Any) -> Iterable[dict[str, str]]:
    where = f"manifest.{index}"
    if not isinstance(item, dict):
        yield _error(where, "This is not an object with name, sha256 and size.")
        return
    if not isinstance(item.get("sha256"), str) or not _SHA256.fullmatch(item["sha256"].lower()):
        yield _error(f"{where}.sha256", "This is not a SHA-256 of 64 hexadecimal digits.")
    if not isinstance(item.get("name", ""), str):
        yield _error(f"{where}.name", "This is not a text.")
    size = item.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        yield _error(f"{where}.size", "This is not a number of bytes.")


def _error(field: str, message: str) -> dict[str, str]:
    return {"field": field, "message": message}
