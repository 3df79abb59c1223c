"""multipart/form-data of thousands of files, streamed to one spool file (RFC 7578).

Django's own parser costs ten times as much and limits the number of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from hub.core.errors import InvalidInput
from sites_app.ingest.spool import SpoolFile

MOST_PARTS = 50_000
_MOST_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class SpooledMember:
    """One file of a multipart body: where it lies in the spool file, its digest and its original name."""

    name: str
    offset: int
    size: int
    sha256: str


@dataclass
class _Part:
    offset: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_name: bytes = b""
    header_value: bytes = b""
    header_bytes: int = 0
    name: str | None = None
    sha256: Any = None


def spool_multipart(content_type: str, pieces: Iterable[bytes], spool: SpoolFile) -> list[SpooledMember]:
    """Write the files of a multipart body back to back into `spool` and return where each lies.

    Fields without a file name are skipped. Raises InvalidInput where the body is damaged, cut short, holds no
    file or more than MOST_PARTS parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidInput(
            "The multipart body names no boundary in its Content-Type. Let your client set it."
        )
    collector = _Collector(spool)
    try:
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        for piece in pieces:
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise InvalidInput("The multipart body is damaged and cannot be read. Send it again.") from error
    if not collector.ended:
        raise InvalidInput("The multipart body ends too early: its last boundary is missing. Send it again.")
    if not collector.members:
        raise InvalidInput("The multipart body holds no file. Send each file as a part with a file name.")
    return collector.members


class _Collector:
    def __init__(self, spool: SpoolFile) -> None:
        self.members: list[SpooledMember] = []
        self.ended = False
        self._spool = spool
        self._parts = 0
        self._part = _Part(0)

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidInput(f"The body has more than {MOST_PARTS:,} parts. Send it in several requests.")
        self._part = _Part(self._spool.size)

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._part.header_value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._part.header_bytes += size
        if self._part.header_bytes > _MOST_HEADER_BYTES:
            raise InvalidInput(f"Part {self._parts} has more than {_MOST_HEADER_BYTES:,} bytes of headers.")

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.lower()] = part.header_value
        part.header_name = part.header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        name = options.get(b"filename")
        if name is not None:
            self._part.name = name.decode("utf-8", "replace")
            self._part.sha256 = hashlib.sha256()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name is not None:
            piece = memoryview(data)[start:end]
            self._part.sha256.update(piece)
            self._spool.write(piece)

    def _part_end(self) -> None:
        part = self._part
        if part.name is not None:
            size = self._spool.size - part.offset
            self.members.append(SpooledMember(part.name, part.offset, size, part.sha256.hexdigest()))

    def _end(self) -> None:
        self.ended = True
