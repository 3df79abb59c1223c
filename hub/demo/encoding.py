"""A small Explicit VR Little Endian writer (PS3.5 7.1.2) that encodes what a series shares only once.

pydicom writes a 90-element header in about 3 ms; joining elements encoded beforehand takes 0.05 ms, which is
what lets a benchmark make thousands of instances. Every file is read back with pydicom in the tests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLEMENTATION_CLASS_UID = "2.25.201731914209346723019735419071239121"
PREAMBLE = b"\0" * 128 + b"DICM"

Key = str | tuple[int, str]
Elements = Mapping[Key, Any]

_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_AMBIGUOUS_VRS = {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "US"}


def make_uid(*parts: object) -> str:
    """Return a UID under 2.25 (PS3.5 B.2) that depends only on `parts`."""
    seed = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{int.from_bytes(seed[:16], 'big')}"


@cache
def _tag_and_vr(keyword: str) -> tuple[int, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword!r} is not a keyword of the DICOM data dictionary.")
    vr = dictionary_VR(tag)
    return tag, _AMBIGUOUS_VRS.get(vr, vr)


def _resolve(key: Key) -> tuple[int, str]:
    return _tag_and_vr(key) if isinstance(key, str) else key


def _text(value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else (value,)
    return "\\".join(f"{item:.10g}" if isinstance(item, float) else str(item) for item in values)


def _sequence(items: Sequence[Elements]) -> bytes:
    encoded = (encode_dataset(item) for item in items)
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in encoded)


def _value(vr: str, value: Any) -> bytes:
    if value is None:
        return b""
    if vr == "SQ":
        return _sequence(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
    elif vr in _NUMBER_FORMATS:
        values = value if isinstance(value, (list, tuple)) else (value,)
        raw = struct.pack(f"<{len(values)}{_NUMBER_FORMATS[vr]}", *values)
    elif vr == "AT":
        raw = struct.pack("<HH", value >> 16, value & 0xFFFF)
    else:
        raw = _text(value).encode()
    if len(raw) % 2:
        raw += b"\0" if vr in ("UI", "OB", "UN") else b" "
    return raw


def encode_element(key: Key, value: Any) -> tuple[int, bytes]:
    """Return the tag and the encoded bytes of one element; `key` is a keyword or (tag, VR)."""
    tag, vr = _resolve(key)
    raw = _value(vr, value)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in _LONG_VRS:
        return tag, head + struct.pack("<HI", 0, len(raw)) + raw
    if len(raw) > 0xFFFF:
        raise ValueError(f"{key!r} holds {len(raw)} bytes; VR {vr} allows 65,535.")
    return tag, head + struct.pack("<H", len(raw)) + raw


def encode_dataset(elements: Elements) -> bytes:
    """Return the elements in tag order, without preamble or file meta information."""
    return b"".join(raw for _, raw in sorted(encode_element(key, value) for key, value in elements.items()))


def file_meta(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Return preamble, prefix and file meta information (PS3.10 7.1)."""
    meta = encode_dataset(
        {
            "FileMetaInformationVersion": b"\0\1",
            "MediaStorageSOPClassUID": sop_class_uid,
            "MediaStorageSOPInstanceUID": sop_instance_uid,
            "TransferSyntaxUID": EXPLICIT_LITTLE_ENDIAN,
            "ImplementationClassUID": IMPLEMENTATION_CLASS_UID,
            "ImplementationVersionName": "HUBDEMO_1",
        }
    )
    return PREAMBLE + encode_element("FileMetaInformationGroupLength", len(meta))[1] + meta


class SeriesEncoder:
    """Writes the instances of one series; what they share is encoded once."""

    def __init__(self, shared: Elements) -> None:
        self._sop_class_uid = str(shared["SOPClassUID"])
        self._shared = dict(encode_element(key, value) for key, value in shared.items())

    def instance(self, own: Elements, removed: Sequence[Key] = ()) -> bytes:
        """Return one Part 10 file: the shared elements, overridden by `own`, without `removed`."""
        elements = dict(self._shared)
        elements.update(encode_element(key, value) for key, value in own.items())
        for key in removed:
            elements.pop(_resolve(key)[0], None)
        body = b"".join(elements[tag] for tag in sorted(elements))
        return file_meta(self._sop_class_uid, str(own["SOPInstanceUID"])) + body
