"""Original file names: they may identify a person, so they lie in the quarantine area and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from hub.core.storage.blobs import root, write_durably

LONGEST_NAME = 400


def store_names(owner_id: UUID, names: Sequence[str]) -> None:
    """Keep the names of an upload's files (or a submission's manifest), in their order."""
    content = json.dumps([plain_name(name) for name in names], ensure_ascii=False)
    write_durably(_path(owner_id), content.encode("utf-8", "replace"))


def load_names(owner_id: UUID) -> list[str]:
    """Return the names kept for an upload or a manifest; empty where there are none."""
    try:
        found = json.loads(_path(owner_id).read_bytes())
    except (OSError, ValueError):
        return []
    return [str(name) for name in found]


def remove_names(owner_id: UUID) -> None:
    _path(owner_id).unlink(missing_ok=True)


def plain_name(name: str) -> str:
    """Return a name as one printable line of bounded length, with forward slashes."""
    printable = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name
    )
    return printable.replace("\\", "/")[-LONGEST_NAME:]


def names_folder() -> Path:
    folder = root("quarantine") / "names"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def _path(owner_id: UUID) -> Path:
    return names_folder() / f"{owner_id}.json"
