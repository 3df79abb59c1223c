"""Archives: every hostile form is refused by name, and what is good inside comes through."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest

from sites_app.dicom.archive import ArchiveLimits, ArchiveRefused, display_name, iterate_zip


def build(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer


def codes(buffer: io.BytesIO, limits: ArchiveLimits | None = None) -> list[str]:
    return [member.code for member in iterate_zip(buffer, limits or ArchiveLimits())]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_out_byte_for_byte_in_order(method: int) -> None:
    payload = bytes(range(256)) * 8000
    buffer = build(("a/1.dcm", payload), ("dir/", b""), ("b.dcm", b""), ("c.dcm", b"xyz"), method=method)

    members = list(iterate_zip(buffer))

    assert [(member.name, member.data, member.refused) for member in members] == [
        ("a/1.dcm", payload, False),
        ("b.dcm", b"", False),
        ("c.dcm", b"xyz", False),
    ]


def test_a_streamed_archive_with_data_descriptors_is_read() -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.buffer = io.BytesIO()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            return self.buffer.write(data)

    target = Unseekable()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        archive.writestr("one", b"1" * 500)
        archive.writestr("two", b"2" * 500)

    assert [member.data for member in iterate_zip(target.buffer)] == [b"1" * 500, b"2" * 500]


def test_zip64_sizes_are_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("big", "w", force_zip64=True) as member:
        member.write(b"abc")

    assert [member.data for member in iterate_zip(buffer)] == [b"abc"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/abs/file", "abs/file"),
        ("..\\..\\windows\\x", "windows/x"),
        ("C:\\x.dcm", "C_/x.dcm"),
        ("a\x00b\x1b[31m\r\n.dcm", "a_b_[31m__.dcm"),
        ("..", "unnamed"),
        ("x" * 500, "x" * 200),
    ],
)
def test_names_are_made_safe_to_show(name: str, shown: str) -> None:
    assert display_name(name) == shown


def test_a_bomb_is_stopped_while_its_bytes_are_counted() -> None:
    buffer = build(("bomb", bytes(300 * 2**20)), ("good", b"good"))

    assert codes(buffer) == ["member_bomb", ""]


def test_a_declared_size_is_not_believed() -> None:
    raw = bytearray(build(("liar", bytes(50 * 2**20))).getvalue())
    central = raw.rfind(b"PK\x01\x02")
    struct.pack_into("<L", raw, central + 24, 10)
    struct.pack_into("<L", raw, 22, 10)

    assert codes(io.BytesIO(bytes(raw))) == ["member_bomb"]


def test_overlapping_members_refuse_the_archive() -> None:
    raw = build(("first", b"a" * 100), ("second", b"b" * 100), method=zipfile.ZIP_STORED).getvalue()
    first = raw.find(b"PK\x01\x02")
    second = raw.find(b"PK\x01\x02", first + 4)
    forged = bytearray(raw)
    struct.pack_into("<L", forged, second + 42, 0)

    with pytest.raises(ArchiveRefused) as refused:
        list(iterate_zip(io.BytesIO(bytes(forged))))

    assert refused.value.code == "archive_overlap"


def test_too_many_members_refuse_the_archive() -> None:
    buffer = build(*((f"{number}", b"") for number in range(11)))

    with pytest.raises(ArchiveRefused) as refused:
        list(iterate_zip(buffer, ArchiveLimits(members=10)))

    assert refused.value.code == "archive_too_many_members"


def test_a_total_that_is_too_large_stops_the_archive() -> None:
    buffer = build(("a", b"a" * 600), ("b", b"b" * 600), method=zipfile.ZIP_STORED)
    members = iterate_zip(buffer, ArchiveLimits(total_bytes=1000))

    assert next(members).data == b"a" * 600
    with pytest.raises(ArchiveRefused) as refused:
        next(members)
    assert refused.value.code == "archive_too_large"


def test_an_encrypted_member_is_refused_and_the_others_go_on() -> None:
    raw = bytearray(build(("secret", b"data"), ("open", b"data"), method=zipfile.ZIP_STORED).getvalue())
    central = raw.find(b"PK\x01\x02")
    struct.pack_into("<H", raw, central + 8, 1)

    assert codes(io.BytesIO(bytes(raw))) == ["member_encrypted", ""]


def test_a_link_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system = 3
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")

    assert codes(buffer) == ["member_not_a_file"]


def test_an_archive_in_the_archive_is_refused() -> None:
    inner = build(("x", b"x")).getvalue()

    assert codes(build(("inner.dcm", inner), ("x.gz", b"\x1f\x8b\x08"))) == ["member_is_archive"] * 2


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    assert codes(build(("x", b"x" * 100), method=method)) == ["member_method_unknown"]


def test_a_wrong_checksum_refuses_the_member() -> None:
    raw = build(("x", b"hello"), ("y", b"there"), method=zipfile.ZIP_STORED).getvalue()

    assert codes(io.BytesIO(raw.replace(b"hello", b"hellO"))) == ["member_damaged", ""]


def test_damaged_deflate_refuses_the_member() -> None:
    raw = bytearray(build(("x", bytes(range(256)) * 20)).getvalue())
    raw[40:60] = b"\xff" * 20

    assert codes(io.BytesIO(bytes(raw))) == ["member_damaged"]


@pytest.mark.parametrize("kept", [0, 3, 30, 100])
def test_a_cut_archive_is_refused(kept: int) -> None:
    raw = build(("x", b"x" * 1000), method=zipfile.ZIP_STORED).getvalue()

    with pytest.raises(ArchiveRefused) as refused:
        list(iterate_zip(io.BytesIO(raw[:kept])))

    assert refused.value.code == "archive_damaged"


def test_no_change_of_a_byte_raises_anything_but_a_refusal() -> None:
    raw = build(("x", b"x" * 100), ("y", zlib.compress(b"y" * 50))).getvalue()

    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 0xFF
        try:
            list(iterate_zip(io.BytesIO(bytes(changed))))
        except ArchiveRefused as error:
            assert error.code and error.detail and error.action
