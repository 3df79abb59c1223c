"""The files of a spooled upload, one after the other, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from sites_app.dicom.archive import ArchiveRefused, iterate_zip
from sites_app.dicom.sniff import HEAD_BYTES, FileKind, sniff
from sites_app.ingest.names import load_names
from sites_app.ingest.spool import spool_path
from sites_app.models import Upload

MOST_FILE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """One file as received, or (with a `code`) why its bytes could not be had."""

    name: str
    data: bytes
    code: str = ""
    detail: str = ""
    action: str = ""


def received_files(upload: Upload) -> Iterator[ReceivedFile]:
    """Yield the files of an upload in their order; archives in a multipart body are unpacked, one level deep.

    Raises FileNotFoundError where the spool file is gone.
    """
    names = load_names(upload.pk)
    with spool_path(upload.pk).open("rb") as spool:
        if upload.kind == Upload.Kind.ZIP:
            yield from _unpacked(spool, names[0] if names else "")
        elif upload.kind == Upload.Kind.DICOM:
            yield _whole(spool, names[0] if names else "", 0, upload.size)
        else:
            for index, (offset, size, _) in enumerate(upload.members):
                yield from _member(spool, names[index] if index < len(names) else "", offset, size)


def _member(spool: BinaryIO, name: str, offset: int, size: int) -> Iterator[ReceivedFile]:
    spool.seek(offset)
    if sniff(spool.read(HEAD_BYTES)) == FileKind.ZIP:
        yield from _unpacked(cast("BinaryIO", _Window(spool, offset, size)), name)
    else:
        yield _whole(spool, name, offset, size)


def _whole(spool: BinaryIO, name: str, offset: int, size: int) -> ReceivedFile:
    if size > MOST_FILE_BYTES:
        return ReceivedFile(
            name,
            b"",
            "file_too_large",
            f"The file has {size:,} bytes; at most {MOST_FILE_BYTES:,} are read.",
            "Send the series as single-frame instances, or ask the administrator.",
        )
    spool.seek(offset)
    return ReceivedFile(name, spool.read(size))


def _unpacked(file: BinaryIO, archive_name: str) -> Iterator[ReceivedFile]:
    try:
        for member in iterate_zip(file):
            yield ReceivedFile(member.name, member.data, member.code, member.detail, member.action)
    except ArchiveRefused as refused:
        yield ReceivedFile(archive_name, b"", refused.code, refused.detail, refused.action)


class _Window:
    """A part of the spool file that reads like a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: self._size}[whence]
        self._at = min(max(base + offset, 0), self._size)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        self._file.seek(self._offset + self._at)
        content = self._file.read(left if size < 0 else min(size, left))
        self._at += len(content)
        return content
