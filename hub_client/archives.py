"""Stored zip archives whose length is known before they are written, so that they can be streamed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

LARGEST_MEMBER_BYTES = (1 << 32) - 1 - (1 << 20)
"""Sizes and offsets of a zip archive without its 64-bit extension have 32 bits; the rest is for names."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive; `pieces()` gives its content, which must have this size (bytes) and CRC-32."""

    name: str
    size: int
    crc32: int
    pieces: Callable[[], Iterable[bytes]]


class StoredZip:
    """A zip archive of uncompressed members (APPNOTE 4.3); iterating writes it, as often as wanted."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = [(member, member.name.encode()) for member in members]
        names = sum(len(name) for _, name in self._members)
        data = sum(member.size for member, _ in self._members)
        self.length = len(self._members) * (30 + 46) + 2 * names + data + 22

    def __iter__(self) -> Iterator[bytes]:
        directory: list[bytes] = []
        offset = 0
        for member, name in self._members:
            common = struct.pack(
                "<HHHHHIIIHH", 20, 0x800, 0, 0, 0x21, member.crc32, member.size, member.size, len(name), 0
            )
            yield b"PK\3\4" + common + name
            yield from member.pieces()
            place = struct.pack("<HHHII", 0, 0, 0, 0, offset)
            directory.append(b"PK\1\2" + struct.pack("<H", 20) + common + place + name)
            offset += 30 + len(name) + member.size
        listing = b"".join(directory)
        count = len(self._members)
        end = struct.pack("<HHHHIIH", 0, 0, count, count, len(listing), offset, 0)
        yield listing + b"PK\5\6" + end
