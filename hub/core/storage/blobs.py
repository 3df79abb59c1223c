"""Content-addressed blobs (previews, tables, models, reports, manifests) on local disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from hub.core.errors import NotFound, StorageFull

_PIECE_BYTES = 4 << 20
_PARTIAL = ".partial-"


def root(area: str) -> Path:
    """Return the folder of a storage area, made where it lacks."""
    path = Path(settings.HUB_STORAGE_ROOT) / area
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def require_free_space() -> None:
    """Raise StorageFull where the disk is nearer to full than HUB_FREE_SPACE_FLOOR allows."""
    usage = shutil.disk_usage(root("spool"))
    if usage.free < usage.total * settings.HUB_FREE_SPACE_FLOOR:
        raise StorageFull(
            f"The hub's disk has {usage.free / usage.total:.0%} left, so uploads are refused."
            " Nothing was stored. Tell the administrator and try again later."
        )


def put_blob(content: bytes) -> str:
    """Store `content` durably under its SHA-256 and return that digest; storing twice has no effect."""
    digest = hashlib.sha256(content).hexdigest()
    path = _path(digest)
    if not path.exists():
        write_durably(path, content)
    return digest


def get_blob(digest: str) -> bytes:
    """Return the content of `digest`, checked against it. Raises NotFound where it is absent or damaged."""
    try:
        content = _path(digest).read_bytes()
    except OSError as error:
        raise NotFound(f"The stored content {digest[:12]}… is not there. Tell the administrator.") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise NotFound(f"The stored content {digest[:12]}… is damaged. Tell the administrator.")
    return content


def put_file(path: Path) -> str:
    """Move the file at `path` (on the storage's own disk) into the store; return the SHA-256 of its content.

    For content too large for memory. Raises StorageFull where the disk refuses it; `path` is then still there.
    """
    digest = _digest_of_file(path)
    target = _path(digest)
    try:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(path, target)
    except OSError as error:
        raise StorageFull("The hub could not write to its disk. Nothing was stored.") from error
    sync_directory(target.parent)
    return digest


def blob_file(digest: str) -> Path:
    """Return the file of `digest` for reading in pieces, its content checked first. Raises NotFound."""
    path = _path(digest)
    try:
        found = _digest_of_file(path)
    except OSError as error:
        raise NotFound(f"The stored content {digest[:12]}… is not there. Tell the administrator.") from error
    if found != digest:
        raise NotFound(f"The stored content {digest[:12]}… is damaged. Tell the administrator.")
    return path


def blob_pieces(digest: str) -> Iterator[bytes]:
    """Yield the content of `digest` in pieces, its whole checked first. Raises NotFound."""
    with blob_file(digest).open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _path(digest: str) -> Path:
    return root("blobs") / digest[:2] / digest


def write_durably(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that after a crash either all of it is there or nothing.

    Raises StorageFull where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise StorageFull("The hub could not write to its disk. Nothing was stored.") from error
    sync_directory(path.parent)


def remove_partial_files(before_s: float) -> int:
    """Remove what killed processes left of `write_durably` and did not touch since; return how many files."""
    count = 0
    for area in ("blobs", "quarantine"):
        for path in root(area).rglob(f"{_PARTIAL}*"):
            with suppress(FileNotFoundError):  # it may have been finished since it was listed
                if path.stat().st_mtime < before_s:
                    path.unlink()
                    count += 1
    return count


def sync_directory(path: Path) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
