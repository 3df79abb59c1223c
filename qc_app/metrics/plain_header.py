"""A fast way through the usual header: explicit VR little endian, every length defined, tags in order.

pydicom takes three times as long, and a series has hundreds of headers. What is unusual is left to pydicom.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_COMPRESSED_PREFIX = "1.2.840.10008.1.2.4."
_SHORT_VRS = {
    vr.encode(): vr for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
}
_LONG_VRS = {vr.encode(): vr for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}
_PREAMBLE_BYTES = 128
_TRANSFER_SYNTAX = 0x00020010
_FIRST_PIXELS, _LAST_PIXELS = 0x7FE00008, 0x7FE00010
_UNDEFINED_LENGTH = 0xFFFFFFFF
_HEAD_BYTES = 64 * 1024
_element_head = struct.Struct("<HH2sH").unpack_from
_long_length = struct.Struct("<I").unpack_from

Header = tuple[Dataset, str, int]
_Raw = tuple[int, str, bytes, int]


def read_plain_header(data: bytes | memoryview) -> Header | None:
    """Return a file's data set, its transfer syntax and where its pixel data element begins (PS3.5 7.1, PS3.10 7.1).

    None where anything is not plain: another encoding, an undefined length, a tag out of order, an unknown
    VR, no pixel data in the first 64 KiB, or a file that breaks off.
    """
    head = bytes(data[:_HEAD_BYTES])
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return None
    syntax = ""
    elements: dict[BaseTag, DataElement | RawDataElement] = {}
    for tag, vr, value, start in _walk(head, _PREAMBLE_BYTES + 4):
        if tag >= _FIRST_PIXELS:
            return (Dataset(elements), syntax, start) if tag <= _LAST_PIXELS else None
        if tag >> 16 > 2:
            if not syntax:
                return None
            key = BaseTag(tag)
            elements[key] = RawDataElement(key, vr, len(value), value, start, False, True)
        elif tag == _TRANSFER_SYNTAX:
            syntax = value.decode("ascii", "replace").strip(" \0")
            if syntax != _EXPLICIT_LITTLE and not syntax.startswith(_COMPRESSED_PREFIX):
                return None
    return None


def _walk(head: bytes, position: int) -> Iterator[_Raw]:
    """Yield (tag, VR, value, offset of the value); for pixel data the offset of the element. End at what is odd."""
    last, previous = len(head) - 12, -1
    while position <= last:
        group, number, code, length = _element_head(head, position)
        tag = group << 16 | number
        if tag <= previous:
            return
        if tag >= _FIRST_PIXELS:
            yield tag, "", b"", position
            return
        vr, start = _SHORT_VRS.get(code), position + 8
        if vr is None:
            vr, start = _LONG_VRS.get(code), position + 12
            (length,) = _long_length(head, position + 8)
            if vr is None or length == _UNDEFINED_LENGTH:
                return
        position = start + length
        if position > last:
            return
        previous = tag
        yield tag, vr, head[start:position], start
