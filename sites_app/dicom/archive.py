"""Unpacks zip archives as a stream, trusting none of what they declare.

The central directory is read by us: `zipfile` believes overlapping and forged entries (CVE-2024-0450). Sizes are
counted while inflating, checksums are checked, names are shown to people but never used as paths.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

from isal import isal_zlib

from sites_app.dicom.sniff import FileKind, sniff

_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_INFLATE_ERROR = cast("type[Exception]", isal_zlib.IsalError)
_STORED, _DEFLATED = 0, 8
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED_FLAG, _UTF8_FLAG = 0x1, 0x800
_LINK_MODE, _FILE_MODE, _MODE_MASK = 0xA000, 0x8000, 0xF000
_UNIX_HOST = 3
_READ_BYTES = 1 << 20
_NAME_CHARACTERS = 200


class ArchiveRefused(Exception):
    """A whole archive that cannot be unpacked safely: code, what is wrong, and what to do."""

    def __init__(
        self, code: str, detail: str, action: str = "Make the archive again and send it once more."
    ) -> None:
        self.code, self.detail, self.action = code, detail, action
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds on one archive; all sizes in bytes of real, inflated data.

    A member may unpack to `ratio_free_bytes` whatever its size, to `ratio` times its size up to `large_bytes`,
    and to `large_ratio` times its size beyond: images of several hundred megabytes never shrink a hundredfold.
    """

    members: int = 50_000
    member_bytes: int = 2 * 2**30
    total_bytes: int = 64 * 2**30
    ratio: int = 100
    ratio_free_bytes: int = 16 * 2**20
    large_ratio: int = 10
    large_bytes: int = 128 * 2**20

    def allowed(self, compressed: int) -> int:
        """Return how many bytes a member of `compressed` bytes may unpack to."""
        by_ratio = max(min(self.ratio * compressed, self.large_bytes), self.large_ratio * compressed)
        return min(self.member_bytes, max(by_ratio, self.ratio_free_bytes))


DEFAULT_LIMITS = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its name made safe to show, and its bytes, or why it is refused."""

    name: str
    data: bytes = b""
    code: str = ""
    detail: str = ""
    action: str = ""

    @property
    def refused(self) -> bool:
        return bool(self.code)


class _Entry(NamedTuple):
    name: str
    method: int
    flags: int
    crc: int
    compressed: int
    offset: int
    mode: int


def display_name(name: str) -> str:
    """Return a member's name made safe to show: both separators normalised, no drive, no dots, no controls."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    text = "/".join(parts).replace(":", "_")
    text = "".join(character if character.isprintable() else "_" for character in text)
    return text[-_NAME_CHARACTERS:] or "unnamed"


def iterate_zip(file: BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS) -> Iterator[Member]:
    """Yield the files of a zip archive in the order they lie in, each whole in memory, directories left out.

    A member that is encrypted, a link, damaged, an archive itself, too large or compressed too well comes as a
    refused Member and the others go on.

    Raises ArchiveRefused where the archive as a whole is damaged, lies about itself or passes a limit.
    """
    size = file.seek(0, 2)
    entries = sorted(_directory(file, size, limits), key=lambda entry: entry.offset)
    spans = _spans(file, entries, size)
    left = limits.total_bytes
    for entry, (start, stop) in zip(entries, spans, strict=True):
        if entry.name.endswith(("/", "\\")) and entry.crc == 0:
            continue
        member = _member(file, entry, start, stop, limits, left)
        left -= len(member.data)
        yield member


def _directory(file: BinaryIO, size: int, limits: ArchiveLimits) -> list[_Entry]:
    count, length, start = _locate_directory(file, size)
    if count > limits.members:
        raise ArchiveRefused(
            "archive_too_many_members",
            f"The archive holds {count} files; at most {limits.members} are accepted at once.",
            "Send the files in several archives.",
        )
    if start + length > size or count * _CENTRAL.size > length:
        raise _damaged("its list of files does not fit into it")
    file.seek(start)
    raw = file.read(length)
    entries, position = [], 0
    for _ in range(count):
        try:
            entry, position = _entry(raw, position)
        except (struct.error, IndexError) as error:
            raise _damaged("its list of files breaks off") from error
        entries.append(entry)
    if any(entry.offset + _LOCAL.size + entry.compressed > start for entry in entries):
        raise _damaged("a file in it reaches into the list of files")
    return entries


def _locate_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return (number of entries, bytes, offset) of the central directory (APPNOTE 4.3.16, 4.3.14)."""
    tail_bytes = min(size, _END.size + _MAX_16)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged("its end is missing; it was cut short or is no zip")
    _, disk, _, _, count, length, start, _ = _END.unpack_from(tail, at)
    if disk not in (0, _MAX_16):
        raise ArchiveRefused(
            "archive_split", "The archive is one part of several.", "Send one whole archive."
        )
    if _MAX_16 not in (count,) and _MAX_32 not in (length, start):
        return count, length, start
    if at < _END_64_LOCATOR.size:
        return count, length, start
    magic, _, offset, _ = _END_64_LOCATOR.unpack_from(tail, at - _END_64_LOCATOR.size)
    if magic != b"PK\x06\x07":
        return count, length, start
    file.seek(min(offset, size))
    record = file.read(_END_64.size)
    if len(record) < _END_64.size or record[:4] != b"PK\x06\x06":
        raise _damaged("its 64-bit end record is missing")
    values = _END_64.unpack(record)
    return values[7], values[8], values[9]


def _entry(raw: bytes, position: int) -> tuple[_Entry, int]:
    fields = _CENTRAL.unpack_from(raw, position)
    if fields[0] != b"PK\x01\x02":
        raise _damaged("its list of files is broken")
    host, flags, method = fields[2], fields[5], fields[6]
    crc, compressed, inflated = fields[9], fields[10], fields[11]
    name_length, extra_length, comment_length = fields[12], fields[13], fields[14]
    external, offset = fields[17], fields[18]
    position += _CENTRAL.size
    name = raw[position : position + name_length].decode(
        "utf-8" if flags & _UTF8_FLAG else "cp437", "replace"
    )
    extra = raw[position + name_length : position + name_length + extra_length]
    compressed, offset = _wide(extra, inflated, compressed, offset)
    mode = external >> 16 if host == _UNIX_HOST else 0
    return _Entry(name, method, flags, crc, compressed, offset, mode), position + (
        name_length + extra_length + comment_length
    )


def _wide(extra: bytes, inflated: int, compressed: int, offset: int) -> tuple[int, int]:
    """Read 64-bit sizes from the extra field where the 32-bit ones are full (APPNOTE 4.5.3)."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            at = position + 4 + (8 if inflated == _MAX_32 else 0)
            if compressed == _MAX_32:
                (compressed,) = struct.unpack_from("<Q", extra, at)
                at += 8
            if offset == _MAX_32:
                (offset,) = struct.unpack_from("<Q", extra, at)
            break
        position += 4 + length
    return compressed, offset


def _spans(file: BinaryIO, entries: list[_Entry], size: int) -> list[tuple[int, int]]:
    """Return where each member's bytes lie; refuse archives whose members share bytes."""
    spans, previous = [], 0
    for entry in entries:
        file.seek(entry.offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise _damaged("a file in it has no header")
        name_length, extra_length = _LOCAL.unpack(header)[9:11]
        start = entry.offset + _LOCAL.size + name_length + extra_length
        if entry.offset < previous:
            raise ArchiveRefused(
                "archive_overlap", "Files in the archive share the same bytes: it is a zip bomb."
            )
        previous = start + entry.compressed
        if previous > size:
            raise _damaged("a file in it breaks off")
        spans.append((start, previous))
    return spans


def _member(file: BinaryIO, entry: _Entry, start: int, stop: int, limits: ArchiveLimits, left: int) -> Member:
    name = display_name(entry.name)
    refusal = _refusal(entry)
    if refusal is not None:
        return Member(name, b"", *refusal)
    allowed = limits.allowed(stop - start)
    file.seek(start)
    try:
        data = _inflate(file, entry, stop - start, min(allowed, left))
    except (_INFLATE_ERROR, EOFError) as error:
        return Member(
            name, b"", "member_damaged", f"The file cannot be inflated: {error}.", "Send the file again."
        )
    if data is None and left <= allowed:
        raise ArchiveRefused(
            "archive_too_large",
            f"The archive unpacks to more than {limits.total_bytes} bytes.",
            "Send several archives.",
        )
    if data is None:
        detail = f"The file unpacks to more than {allowed} bytes from {stop - start} in the archive."
        return Member(name, b"", "member_bomb", detail, "Send the file by itself, not compressed.")
    if isal_zlib.crc32(data) != entry.crc:
        return Member(name, b"", "member_damaged", "The file's checksum is wrong.", "Make the archive again.")
    if sniff(data) in (
        FileKind.ZIP,
        FileKind.GZIP,
        FileKind.TAR,
        FileKind.SEVEN_ZIP,
        FileKind.RAR,
        FileKind.BZIP2,
    ):
        return Member(
            name,
            b"",
            "member_is_archive",
            "The file is an archive inside the archive.",
            "Unpack it and send its files.",
        )
    return Member(name, data)


def _refusal(entry: _Entry) -> tuple[str, str, str] | None:
    if entry.flags & _ENCRYPTED_FLAG:
        return "member_encrypted", "The file is encrypted.", "Make the archive again without a password."
    if entry.mode & _MODE_MASK not in (0, _FILE_MODE):
        what = "a link" if entry.mode & _MODE_MASK == _LINK_MODE else "not an ordinary file"
        return "member_not_a_file", f"The entry is {what}.", "Archive the files themselves."
    if entry.method not in (_STORED, _DEFLATED):
        return (
            "member_method_unknown",
            f"Compression method {entry.method} is not supported.",
            "Make the archive with 'store' or 'deflate'.",
        )
    return None


def _inflate(file: BinaryIO, entry: _Entry, length: int, allowed: int) -> bytes | None:
    """Return a member's bytes, None where there are more than `allowed`; EOFError where they break off."""
    if entry.method == _STORED:
        return None if length > allowed else file.read(length)
    inflater = isal_zlib.decompressobj(-15)
    data = bytearray()
    while length > 0 and not inflater.eof:
        block = file.read(min(length, _READ_BYTES))
        if not block:
            raise EOFError("the archive breaks off")
        length -= len(block)
        while block and not inflater.eof:
            data += inflater.decompress(block, min(_READ_BYTES, allowed + 1 - len(data)))
            if len(data) > allowed:
                return None
            block = inflater.unconsumed_tail
    if not inflater.eof:
        raise EOFError("it breaks off")
    return bytes(data)


def _damaged(why: str) -> ArchiveRefused:
    return ArchiveRefused("archive_damaged", f"The archive cannot be read: {why}.")
