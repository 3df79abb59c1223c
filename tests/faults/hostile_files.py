"""Files made to break a reader: each with the content type it is sent as."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass

from hub.demo.simulator import simulate_mr

DICOM, ZIP = "application/dicom", "application/zip"
TINY_MEMBERS = 20_000
_EXPLICIT, _DEFLATED = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"
_LONG = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Hostile:
    """One hostile body. `harmless` where its images may be accepted, once what is hostile is taken off."""

    name: str
    content: bytes
    content_type: str = DICOM
    harmless: bool = False


def hostile_files() -> list[Hostile]:
    """Return every hostile body, the same at each call."""
    good = simulate_mr(slices=1, rows=32, columns=32, seed=990_001).files[0].data
    return [*_damaged_files(good), *_nested_files(), *_archives(good), *_mutants(good)]


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return one explicit little endian element whose length field may lie (PS3.5 7.1.2)."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", group, number) + vr
    head += struct.pack("<HI", 0, size) if vr in _LONG else struct.pack("<H", size & 0xFFFF)
    return head + value


def part10(body: bytes, syntax: bytes = _EXPLICIT) -> bytes:
    """Return a Part 10 file around a data set (PS3.10 7.1)."""
    padded = syntax + b"\0" * (len(syntax) % 2)
    meta = element(2, 0x10, b"UI", padded)
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body


def _damaged_files(good: bytes) -> list[Hostile]:
    head = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.4\0") + element(8, 0x18, b"UI", b"1.2.3.4")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = bomb.compress(head + element(0x7FE0, 0x10, b"OW", bytes(200_000_000))) + bomb.flush()
    return [
        *(
            Hostile(f"cut after {size} bytes", good[:size])
            for size in (1, 128, 131, 132, 140, 200, 500, 1000)
        ),
        Hostile("cut inside the pixels", good[:-500]),
        Hostile("length of 4 GB", part10(head + element(0x7FE0, 0x10, b"OW", b"\0" * 8, 0xFFFFFFF0))),
        Hostile("undefined length of a value", part10(head + element(0x10, 0x4000, b"UT", b"", _UNDEFINED))),
        Hostile("false length of the meta group", _false_meta_length(good), harmless=True),
        Hostile("pixels of 65535 x 65535", part10(head + _pixels(65535, 65535))),
        Hostile(
            "two hundred thousand elements", part10(head + element(0x0009, 0x1001, b"LO", b"ab") * 200_000)
        ),
        Hostile("UID with a path", part10(element(8, 0x18, b"UI", b"../../../../etc/passwd"))),
        Hostile("UID with a line break", part10(element(8, 0x18, b"UI", b"1.2\r\nX: 1"))),
        Hostile("deflated bomb", part10(deflated, _DEFLATED)),
        Hostile("executable before the image", b"MZ" + bytes(126) + good[128:], harmless=True),
        Hostile("zeros", bytes(1_000_000)),
    ]


def _false_meta_length(good: bytes) -> bytes:
    """Return a file whose meta group claims 4 GB; a reader that ends it by its tags loses nothing."""
    return good[:140] + struct.pack("<I", 0xFFFFFF00) + good[144:]


def _pixels(rows: int, columns: int) -> bytes:
    shape = element(0x28, 0x10, b"US", struct.pack("<H", rows)) + element(
        0x28, 0x11, b"US", struct.pack("<H", columns)
    )
    return shape + element(0x7FE0, 0x10, b"OW", bytes(64))


def _nested_files() -> list[Hostile]:
    found = []
    for depth in (50, 300, 20_000):
        opened = (element(8, 0x1115, b"SQ", b"", _UNDEFINED) + _item(_UNDEFINED)) * depth
        closed = (_delimiter(0xE00D) + _delimiter(0xE0DD)) * depth
        found.append(Hostile(f"{depth} nested sequences", part10(opened + closed)))
        found.append(Hostile(f"{depth} nested sequences never closed", part10(opened)))
    items = element(8, 0x1115, b"SQ", _item(0) * 300_000, _UNDEFINED) + _delimiter(0xE0DD)
    return [*found, Hostile("three hundred thousand items", part10(items))]


def _item(length: int) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length)


def _delimiter(number: int) -> bytes:
    return struct.pack("<HHI", 0xFFFE, number, 0)


def _archives(good: bytes) -> list[Hostile]:
    paths = {name: good for name in ("../../../../tmp/evil.dcm", "/etc/evil.dcm", "C:\\evil.dcm", "a\0b.dcm")}
    whole = _zip({"a.dcm": good, "b.dcm": good[:-2] + b"ab"})
    return [
        Hostile("names that are paths", _zip(paths), ZIP, harmless=True),
        Hostile("link", _link(), ZIP),
        Hostile("overlapping members", _overlapping(), ZIP),
        Hostile("bomb of 1 GB", _zip({"bomb.dcm": bytes(2**30)}, zipfile.ZIP_DEFLATED), ZIP),
        Hostile("bomb in an unknown method", _zip({"bomb.dcm": bytes(2**26)}, zipfile.ZIP_BZIP2), ZIP),
        Hostile("forged sizes", _forged(whole), ZIP),
        Hostile("archive in an archive", _zip({"inner.zip": whole}), ZIP),
        Hostile("archive cut short", whole[: len(whole) // 2], ZIP),
        Hostile("many tiny members", _zip({f"{n}": b"x" for n in range(TINY_MEMBERS)}), ZIP),
        Hostile("no members", _zip({}), ZIP),
    ]


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("image.dcm")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _overlapping() -> bytes:
    """Return an archive whose list names the same bytes as several files (CVE-2024-0450)."""
    content = bytearray(_zip({"a.dcm": b"A" * 50, "b.dcm": b"B" * 50}))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 42 : directory + 46] = struct.pack("<I", 0)
    return bytes(content)


def _forged(archive: bytes) -> bytes:
    """Return an archive whose list declares 4 GB for its last member."""
    content = bytearray(archive)
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 20 : directory + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    return bytes(content)


def _mutants(good: bytes) -> list[Hostile]:
    """Return a zip of images, each with some bytes of its header replaced at random."""
    chance = random.Random(20_240_450)
    members = {}
    for number in range(200):
        mutant = bytearray(good)
        for _ in range(chance.randint(1, 12)):
            mutant[chance.randrange(132, len(good) - 2048)] = chance.randrange(256)
        members[f"{number}.dcm"] = bytes(mutant)
    return [Hostile("two hundred mutants", _zip(members), ZIP, harmless=True)]
