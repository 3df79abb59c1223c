"""A folder of files as archives of limited size; nothing is held whole in memory."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub_client.archives import LARGEST_MEMBER_BYTES, Member, StoredZip

ARCHIVE_BYTES = 64 * 1024 * 1024
ARCHIVE_FILES = 500
_PIECE_BYTES = 1 << 20


class FolderUnusable(Exception):
    """The folder, or a file in it, cannot be sent; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file as it was read: `name` is its path in the folder, with slashes; size in bytes."""

    path: Path
    name: str
    size: int
    sha256: str
    crc32: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the content. Raises FolderUnusable where it is no longer what was read before."""
        size = crc = 0
        for piece in _read(self.path):
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            if size > self.size:
                break
            yield piece
        if (size, crc) != (self.size, self.crc32):
            raise FolderUnusable(f"{self.path} changed while it was being sent. Run the command again.")


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder and its folders in order, without hidden ones and symbolic links.

    Raises FolderUnusable where it is no folder or cannot be read.
    """
    if not folder.is_dir():
        raise FolderUnusable(f"{folder} is no folder. Name the folder that holds the DICOM files.")

    def refuse(error: OSError) -> None:
        raise FolderUnusable(f"{error.filename} cannot be read: {error.strerror}.") from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(parent) / name for name in sorted(names) if not name.startswith(".")]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def read_file(path: Path, folder: Path) -> LocalFile:
    """Return a file with its digests. Raises FolderUnusable where it cannot be read or is too large."""
    hashed, crc, size = hashlib.sha256(), 0, 0
    for piece in _read(path):
        hashed.update(piece)
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    if size > LARGEST_MEMBER_BYTES:
        raise FolderUnusable(f"{path} has {size:,} bytes; a file of 4 GB or more cannot be sent.")
    return LocalFile(path, path.relative_to(folder).as_posix(), size, hashed.hexdigest(), crc)


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise FolderUnusable(f"{path} cannot be read: {error.strerror}.") from error


def batches(files: Iterable[LocalFile]) -> Iterator[list[LocalFile]]:
    """Yield the files in groups of at most ARCHIVE_FILES and ARCHIVE_BYTES; a larger file goes alone."""
    batch: list[LocalFile] = []
    size = 0
    for file in files:
        if batch and (size + file.size > ARCHIVE_BYTES or len(batch) == ARCHIVE_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


def archive_of(files: Sequence[LocalFile]) -> StoredZip:
    return StoredZip([Member(file.name, file.size, file.crc32, file.pieces) for file in files])
