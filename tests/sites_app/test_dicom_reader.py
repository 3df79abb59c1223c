"""The reader: every standard encoding is read, and no hostile file costs time or memory."""

from __future__ import annotations

import random
import resource
import struct
import time
import zlib

import pytest
from dicom_files import KEY, mr_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from sites_app.deid.engine import Deidentifier, InstanceRefused
from sites_app.deid.profile import DEFAULT_PROFILE
from sites_app.dicom.reader import ReadLimits, UnreadableInstance, parse_file
from sites_app.dicom.sniff import FileKind, sniff

META = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
IMPLICIT_META = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 18) + b"1.2.840.10008.1.2\0"
DEFLATED_META = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
SEQUENCE = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def nested(depth: int) -> bytes:
    return META + (SEQUENCE + ITEM) * depth + (ITEM_END + SEQUENCE_END) * depth


def code_of(data: bytes, limits: ReadLimits | None = None) -> str:
    with pytest.raises(UnreadableInstance) as unreadable:
        parse_file(data, limits or ReadLimits())
    assert unreadable.value.detail and unreadable.value.action
    return unreadable.value.code


@pytest.mark.parametrize(
    "syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_encoding_gives_the_same_elements(syntax: str | None) -> None:
    plain = parse_file(mr_file())
    parsed = parse_file(mr_file(transfer_syntax=syntax) if syntax else mr_file())

    assert list(parsed.elements) == list(plain.elements)
    assert parsed.text(0x00080060) == "MR"
    assert parsed.raw(0x7FE00010) is not None


def test_nesting_up_to_the_limit_is_read_and_beyond_is_refused() -> None:
    assert len(parse_file(nested(32)).elements) == 1
    assert code_of(nested(33)) == "too_deep"
    assert code_of(nested(100_000)) == "too_deep"


@pytest.mark.parametrize("meta", [META, IMPLICIT_META])
def test_a_million_empty_items_are_refused_at_once(meta: bytes) -> None:
    start = SEQUENCE if meta is META else struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF)
    began = time.process_time()

    assert code_of(meta + start + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000) == "too_many_elements"
    assert time.process_time() - began < 2


def test_half_a_million_elements_are_refused_at_once() -> None:
    elements = b"".join(
        struct.pack("<HH2sH", 0x0011 + 2 * (number >> 15), 0x1000 + (number & 0x7FFF), b"SH", 0)
        for number in range(500_000)
    )
    began = time.process_time()

    assert code_of(META + elements) == "too_many_elements"
    assert time.process_time() - began < 2


def test_a_large_header_is_refused() -> None:
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 17 * 2**20) + bytes(17 * 2**20)
    tail = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 0)

    assert code_of(META + element + tail) == "header_too_large"


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 100])
def test_a_false_length_allocates_nothing(length: int) -> None:
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert code_of(META + element + b"x" * 50) == "length_invalid"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_deflated_bomb_is_stopped_while_it_inflates() -> None:
    bomb = zlib.compressobj(9, wbits=-15)
    body = bomb.compress(bytes(200 * 2**20)) + bomb.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert code_of(DEFLATED_META + body) == "deflate_bomb"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_dicom"),
        (b"hello, this is no image at all", "not_dicom"),
        (bytes(400), "not_dicom"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "not_dicom"),
        (bytes(128) + b"DICM", "not_dicom"),
        (META + struct.pack("<HH2sH", 8, 5, b"??", 0), "vr_invalid"),
        (META + struct.pack("<HH2sH", 8, 5, b"CS", 10), "length_invalid"),
        (META + struct.pack("<HH2sH", 8, 5, b"CS", 0) * 2, "duplicate_element"),
        (META + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), "element_invalid"),
        (META + SEQUENCE, "truncated"),
        (META + SEQUENCE + ITEM, "truncated"),
        (META + SEQUENCE + b"abcdefgh", "sequence_invalid"),
        (DEFLATED_META + b"not deflated", "deflate_invalid"),
        (META.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.3.1\0"), "transfer_syntax_unknown"),
        (
            META.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
            + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 5000),
            "pixel_data_truncated",
        ),
    ],
)
def test_damaged_files_are_named(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_a_wrong_transfer_syntax_is_refused_and_not_guessed() -> None:
    implicit = mr_file(transfer_syntax=ImplicitVRLittleEndian)

    assert code_of(META + implicit[implicit.index(b"\x08\x00\x05\x00") :]) == "vr_invalid"


def test_every_prefix_and_mutant_is_processed_or_refused() -> None:
    whole = mr_file()
    generator = random.Random(20240131)
    engine = Deidentifier(DEFAULT_PROFILE, KEY, "S-1", 10, "T")
    outcomes = set()

    for step in range(400):
        mutant = bytearray(whole)
        if step % 4 == 0:
            del mutant[generator.randrange(len(mutant)) :]
        for _ in range(generator.choice((1, 5, 20))):
            if mutant:
                mutant[generator.randrange(len(mutant))] = generator.randrange(256)
        try:
            engine.process(bytes(mutant))
            outcomes.add("processed")
        except InstanceRefused as error:
            assert error.code != "unreadable", error.__cause__
            outcomes.add(error.code)

    assert {"processed", "length_invalid", "vr_invalid"} <= outcomes


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", FileKind.EMPTY),
        (META, FileKind.DICOM),
        (b"MZ" + META[2:], FileKind.DICOM),
        (META[128:], FileKind.DICOM_NO_PREAMBLE),
        (META[132:] + bytes(20), FileKind.DICOM_NO_PREAMBLE),
        (struct.pack("<HHI", 8, 5, 10) + b"ISO_IR 100", FileKind.DICOM_NO_PREAMBLE),
        (bytes(128) + b"DICM" + b"1.2.840.10008.1.3.10", FileKind.DICOMDIR),
        (b"PK\x03\x04....", FileKind.ZIP),
        (b"\x1f\x8b\x08", FileKind.GZIP),
        (bytes(257) + b"ustar\x00", FileKind.TAR),
        (struct.pack("<I", 348) + bytes(340) + b"n+1\x00", FileKind.NIFTI),
        (b"\x89PNG\r\n\x1a\n", FileKind.IMAGE),
        (b"%PDF-1.7", FileKind.PDF),
        (b"subject,visit\n", FileKind.TEXT),
        (b"\x07\x00\x01\x02" * 10, FileKind.UNKNOWN),
    ],
)
def test_a_file_is_told_by_its_first_bytes(head: bytes, kind: FileKind) -> None:
    assert sniff(head) is kind
