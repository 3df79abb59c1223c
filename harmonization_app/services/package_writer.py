"""Writing the zip of an export, with the SHA-256 of each of its files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Files = Iterator[tuple[str, Iterable[bytes]]]

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


@dataclass
class PackageWriter:
    """A zip archive of stored members, written to disk piece by piece, with the SHA-256 of each."""

    path: Path
    files: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> PackageWriter:
        self._archive = zipfile.ZipFile(self.path, "x", zipfile.ZIP_STORED)
        return self

    def __exit__(self, *failure: object) -> None:
        self._archive.close()

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write one member. Raises OSError where the disk is full."""
        hashed, size = hashlib.sha256(), 0
        with self._archive.open(zipfile.ZipInfo(name, _FIRST_DAY), "w", force_zip64=True) as member:
            for piece in pieces:
                member.write(piece)
                hashed.update(piece)
                size += len(piece)
        self.digests[name] = hashed.hexdigest()
        self.files.append({"path": name, "sha256": hashed.hexdigest(), "size": size})

    def add_all(self, files: Files) -> None:
        for name, pieces in files:
            self.add(name, pieces)
