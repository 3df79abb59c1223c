"""What a file is, judged by its first bytes and never by its name."""

from __future__ import annotations

from enum import StrEnum

HEAD_BYTES = 512
_PREAMBLE_BYTES = 128
_MEDIA_STORAGE_DIRECTORY = b"1.2.840.10008.1.3.10"


class FileKind(StrEnum):
    DICOM = "dicom"
    DICOM_NO_PREAMBLE = "dicom_no_preamble"
    DICOMDIR = "dicomdir"
    ZIP = "zip"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    SEVEN_ZIP = "7z"
    RAR = "rar"
    TAR = "tar"
    NIFTI = "nifti"
    NRRD = "nrrd"
    IMAGE = "image"
    PDF = "pdf"
    TEXT = "text"
    EMPTY = "empty"
    UNKNOWN = "unknown"


_SIGNATURES = (
    (b"PK\x03\x04", FileKind.ZIP),
    (b"PK\x05\x06", FileKind.ZIP),
    (b"\x1f\x8b", FileKind.GZIP),
    (b"BZh", FileKind.BZIP2),
    (b"7z\xbc\xaf\x27\x1c", FileKind.SEVEN_ZIP),
    (b"Rar!\x1a\x07", FileKind.RAR),
    (b"%PDF-", FileKind.PDF),
    (b"\x89PNG", FileKind.IMAGE),
    (b"\xff\xd8\xff", FileKind.IMAGE),
    (b"GIF8", FileKind.IMAGE),
    (b"BM", FileKind.IMAGE),
    (b"II*\x00", FileKind.IMAGE),
    (b"MM\x00*", FileKind.IMAGE),
    (b"NRRD", FileKind.NRRD),
)


def sniff(head: bytes | memoryview) -> FileKind:
    """Return the kind of the file that begins with `head` (the first 512 bytes are enough).

    A DICOM file with a preamble holds "DICM" at byte 128 (PS3.10 7.1), whatever the preamble pretends to be.
    """
    head = bytes(head[:HEAD_BYTES])
    if not head:
        return FileKind.EMPTY
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        return FileKind.DICOMDIR if _MEDIA_STORAGE_DIRECTORY in head else FileKind.DICOM
    if _starts_with_element(head):
        return FileKind.DICOM_NO_PREAMBLE
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    return _by_later_bytes(head)


def _by_later_bytes(head: bytes) -> FileKind:
    if head[257:262] == b"ustar":
        return FileKind.TAR
    if head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:12] == b"n+2\x00\r\n\x1a\n":
        return FileKind.NIFTI
    if b"\x00" not in head:
        return FileKind.TEXT
    return FileKind.UNKNOWN


def _starts_with_element(head: bytes) -> bool:
    """True where the bytes begin with an element of group 2 or 8, as files without a preamble do."""
    if len(head) < 16 or head[:4] == b"DICM":
        return head[:4] == b"DICM"
    little = head[0] in (2, 8) and head[1] == 0
    big = head[0] == 0 and head[1] == 8
    if not (little or big):
        return False
    element = int.from_bytes(head[2:4], "little" if little else "big")
    if head[4:6].isalpha() and head[4:6].isupper():
        return True
    return little and element <= 0x0100 and int.from_bytes(head[4:8], "little") <= 1024
