"""Where the elements of a DICOM file lie, read under limits so that no file can harm the reader.

Values stay in the file's bytes: an element is a tuple of offsets, so a hostile length allocates nothing.
Encodings: explicit VR little and big endian, implicit VR little endian, deflated (PS3.5 sections 7 and A).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary

PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_COMPRESSED = re.compile(r"1\.2\.840\.10008\.1\.2\.(4\.\d{2,3}|5|7\.\d{1,2}|8\.1)")
UID_PATTERN = re.compile(r"[0-9.]{1,64}")

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT_VRS = frozenset("AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = {name.encode(): (name, name in _LONG_VRS) for name in _SHORT_VRS | _LONG_VRS}
_PLAIN_VRS = {name.encode(): name for name in _SHORT_VRS}
_FORBIDDEN_GROUPS = frozenset({0x0000, 0x0001, 0x0002, 0x0003, 0x0005, 0x0007, 0xFFFE, 0xFFFF})
_SPECIAL_GROUPS = _FORBIDDEN_GROUPS | {0x7FE0}
_DICTIONARY_VRS = {tag: entry[0].split(" or ")[0] for tag, entry in DicomDictionary.items()}


class UnreadableInstance(Exception):
    """A file that cannot be read as DICOM within the limits: a code, what is wrong where, and what to do."""

    def __init__(
        self, code: str, detail: str, action: str = "Export the file again from its source."
    ) -> None:
        self.code, self.detail, self.action = code, detail, action
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on one file's header; bytes count from the first element to the pixel data."""

    depth: int = 32
    elements: int = 100_000
    header_bytes: int = 16 * 2**20
    inflated_bytes: int = 512 * 2**20
    inflated_ratio: int = 100
    fragments: int = 1_000_000


DEFAULT_LIMITS = ReadLimits()


class Element(NamedTuple):
    """One element: bytes `start` to `end` with its header, the value from `value_start` to `value_end`.

    `items` holds the datasets of a sequence, None for any other element. `undefined` is true where the
    length is undefined, so delimiters stand inside `end` but outside the value.
    """

    tag: int
    vr: str
    start: int
    value_start: int
    value_end: int
    end: int
    items: list[Dataset] | None = None
    undefined: bool = False


Dataset = dict[int, Element]
_new_element = tuple.__new__


@dataclass(slots=True)
class ParsedFile:
    """A file's elements and how they are encoded; `data` is inflated where the file was deflated."""

    data: bytes
    elements: Dataset
    transfer_syntax_uid: str
    implicit: bool
    little: bool
    meta: dict[int, bytes] = field(default_factory=dict)
    disordered: bool = False
    trailing_bytes: int = 0

    def raw(self, tag: int) -> bytes | None:
        """Return the value bytes of a top-level element, None where it is absent or a sequence."""
        element = self.elements.get(tag)
        if element is None or element.items is not None:
            return None
        return self.data[element.value_start : element.value_end]

    def text(self, tag: int) -> str:
        """Return a top-level value as stripped Latin-1 text, "" where it is absent."""
        raw = self.raw(tag)
        return raw.decode("latin-1").strip("\0 ") if raw else ""


def parse_file(data: bytes | memoryview, limits: ReadLimits = DEFAULT_LIMITS) -> ParsedFile:
    """Return where each element of a DICOM file lies, up to and with the pixel data.

    Raises UnreadableInstance where the file is not DICOM, breaks off, contradicts itself or passes a limit.
    """
    data = bytes(data)
    try:
        return _parse_file(data, limits)
    except (struct.error, IndexError) as error:
        raise UnreadableInstance("truncated", "The file ends in the middle of an element.") from error


def _parse_file(data: bytes, limits: ReadLimits) -> ParsedFile:
    if data[128:132] == b"DICM":
        meta, start = _read_meta(data, 132)
    elif data[:4] == b"DICM":
        meta, start = _read_meta(data, 4)
    elif data[:2] == b"\x02\x00":
        meta, start = _read_meta(data, 0)
    else:
        meta, start = {}, 0
    syntax = meta.get(0x00020010, b"").decode("latin-1").strip("\0 ") or _guess_syntax(data, start)
    if syntax == DEFLATED_LITTLE:
        data, start = _inflate(data[start:], limits), 0
    elif syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG) and not _COMPRESSED.fullmatch(syntax):
        raise UnreadableInstance(
            "transfer_syntax_unknown",
            f"Transfer syntax (0002,0010) {syntax[:64]!r} is not one of the standard's image encodings.",
            "Export the series with a standard transfer syntax.",
        )
    implicit, little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    walker = _Walker(data, implicit, little, limits)
    elements, end = walker.dataset(start, len(data), 0, False)
    return ParsedFile(data, elements, syntax, implicit, little, meta, walker.disordered, len(data) - end)


def _read_meta(data: bytes, position: int) -> tuple[dict[int, bytes], int]:
    """Read group 2, which is always explicit VR little endian (PS3.10 7.1); its stated length is not trusted."""
    meta: dict[int, bytes] = {}
    while data[position : position + 2] == b"\x02\x00":
        if len(meta) > 64:
            raise UnreadableInstance("meta_invalid", "The file meta information has more than 64 elements.")
        number, vr = struct.unpack_from("<H2s", data, position + 2)
        if vr not in _VRS:
            raise UnreadableInstance("meta_invalid", f"Element (0002,{number:04X}) has no valid VR.")
        if _VRS[vr][1]:
            (length,) = struct.unpack_from("<I", data, position + 8)
            position += 12
        else:
            (length,) = struct.unpack_from("<H", data, position + 6)
            position += 8
        if position + length > len(data):
            raise _past_end(0x00020000 | number, length)
        meta[0x00020000 | number] = data[position : position + length]
        position += length
    return meta, position


def _guess_syntax(data: bytes, start: int) -> str:
    """Tell the encoding of a dataset that has no file meta information from its first element."""
    head = data[start : start + 8]
    if len(head) < 8:
        raise UnreadableInstance("not_dicom", "The file is too short to be DICOM.", "Send DICOM files only.")
    if head[:2] == b"\x08\x00":
        return EXPLICIT_LITTLE if head[4:6] in _VRS else IMPLICIT_LITTLE
    if head[:2] == b"\x00\x08" and head[4:6] in _VRS:
        return EXPLICIT_BIG
    raise UnreadableInstance(
        "not_dicom",
        "The file has no DICM prefix and does not begin with a DICOM element.",
        "Send DICOM files only.",
    )


def _inflate(data: bytes, limits: ReadLimits) -> bytes:
    """Inflate a deflated dataset, counting real bytes (PS3.5 A.5)."""
    allowed = min(limits.inflated_bytes, max(len(data) * limits.inflated_ratio, 2**20))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, allowed)
    except zlib.error as error:
        raise UnreadableInstance(
            "deflate_invalid", f"The deflated dataset cannot be inflated: {error}."
        ) from error
    if inflater.unconsumed_tail or len(inflated) >= allowed:
        raise UnreadableInstance("deflate_bomb", f"The deflated dataset is larger than {allowed} bytes.")
    if not inflater.eof:
        raise UnreadableInstance("truncated", "The deflated dataset breaks off.")
    return inflated


def _past_end(tag: int, length: int) -> UnreadableInstance:
    return UnreadableInstance(
        "length_invalid", f"{tag_text(tag)} claims {length} bytes, more than the file or its sequence holds."
    )


def tag_text(tag: int) -> str:
    """Return a tag as (gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Walker:
    """Walks datasets and sequences; one instance per file holds the counters the limits apply to."""

    def __init__(self, data: bytes, implicit: bool, little: bool, limits: ReadLimits) -> None:
        self.data, self.implicit, self.limits = data, implicit, limits
        order = "<" if little else ">"
        self.tag_length = struct.Struct(order + "HHI").unpack_from
        self.tag_vr = struct.Struct(order + "HH2sH").unpack_from
        self.long_length = struct.Struct(order + "I").unpack_from
        self.budget = limits.elements
        self.origin = -1
        self.disordered = False

    def dataset(
        self, position: int, end: int, depth: int, delimited: bool, implicit: bool = False
    ) -> tuple[Dataset, int]:
        """Read elements from `position` to `end`, or to the item's delimiter where `delimited`."""
        if depth > self.limits.depth:
            raise UnreadableInstance(
                "too_deep", f"Sequences are nested more than {self.limits.depth} levels deep."
            )
        if self.origin < 0:
            self.origin = position
        implicit = implicit or self.implicit
        elements: Dataset = {}
        previous = -1
        while position < end:
            if not implicit:
                position, previous = self._plain_run(position, end, elements, previous)
                if position >= end:
                    break
            element = self._element(position, end, depth, implicit)
            if element.tag == _ITEM_END and delimited:
                return elements, element.value_start
            self._spend(element)
            if element.tag <= previous:
                self._out_of_order(element.tag, elements)
            previous = element.tag
            elements[element.tag] = element
            position = element.end
            if depth == 0 and element.tag in PIXEL_TAGS:
                return elements, position
        if delimited:
            raise UnreadableInstance("truncated", "A sequence item has no end.")
        return elements, position

    def _plain_run(self, position: int, end: int, elements: Dataset, previous: int) -> tuple[int, int]:
        """Read elements of explicit short-length VRs in a tight loop; stop before anything else, good or bad."""
        data, unpack, budget = self.data, self.tag_vr, self.budget
        last = min(end - 8, self.origin + self.limits.header_bytes)
        while position <= last and budget > 0:
            group, number, code, length = unpack(data, position)
            vr = _PLAIN_VRS.get(code)
            tag = group << 16 | number
            stop = position + 8 + length
            if vr is None or tag <= previous or stop > end or group in _SPECIAL_GROUPS:
                break
            elements[tag] = _new_element(Element, (tag, vr, position, position + 8, stop, stop, None, False))
            previous, position = tag, stop
            budget -= 1
        self.budget = budget
        return position, previous

    def _spend(self, element: Element) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise UnreadableInstance(
                "too_many_elements", f"The header has more than {self.limits.elements} elements."
            )
        if element.tag >> 16 in _FORBIDDEN_GROUPS:
            raise UnreadableInstance(
                "element_invalid", f"{tag_text(element.tag)} does not belong in a dataset."
            )
        if element.start - self.origin > self.limits.header_bytes:
            raise UnreadableInstance(
                "header_too_large", f"The header is larger than {self.limits.header_bytes} bytes."
            )

    def _out_of_order(self, tag: int, elements: Dataset) -> None:
        if tag in elements:
            raise UnreadableInstance("duplicate_element", f"{tag_text(tag)} stands twice in one dataset.")
        self.disordered = True

    def _element(self, position: int, end: int, depth: int, implicit: bool) -> Element:
        data = self.data
        if implicit:
            group, number, length = self.tag_length(data, position)
            tag = group << 16 | number
            vr, value = _DICTIONARY_VRS.get(tag, "UN"), position + 8
        else:
            group, number, code, length = self.tag_vr(data, position)
            tag = group << 16 | number
            if group == 0xFFFE:
                return Element(tag, "", position, position + 8, position + 8, position + 8)
            known = _VRS.get(code)
            if known is None:
                raise UnreadableInstance("vr_invalid", f"{tag_text(tag)} has the invalid VR {code!r}.")
            vr, value = known[0], position + 8
            if known[1]:
                (length,) = self.long_length(data, value)
                value += 4
        if group == 0xFFFE:
            return Element(tag, "", position, value, value, value)
        if length == _UNDEFINED:
            return self._undefined(tag, vr, position, value, end, depth, implicit)
        stop = value + length
        if stop > end:
            raise _past_end(tag, length)
        if vr == "SQ" and not group & 1:
            items, _ = self._items(value, stop, depth, False, implicit)
            return Element(tag, vr, position, value, stop, stop, items)
        return Element(tag, vr, position, value, stop, stop)

    def _undefined(
        self, tag: int, vr: str, position: int, value: int, end: int, depth: int, implicit: bool
    ) -> Element:
        if depth == 0 and tag == PIXEL_DATA and not implicit:
            stop = self._fragments(value, end)
            return Element(tag, vr, position, value, stop - 8, stop, None, True)
        if vr not in ("SQ", "UN"):
            raise UnreadableInstance(
                "length_invalid", f"{tag_text(tag)} with VR {vr} has an undefined length."
            )
        # The content of an element of VR UN and undefined length is implicit VR little endian (PS3.5 6.2.2).
        items, stop = self._items(value, end, depth, True, implicit or vr == "UN")
        return Element(tag, vr, position, value, stop - 8, stop, items, True)

    def _items(
        self, position: int, end: int, depth: int, delimited: bool, implicit: bool
    ) -> tuple[list[Dataset], int]:
        items: list[Dataset] = []
        while position < end:
            group, number, length = self.tag_length(self.data, position)
            tag = group << 16 | number
            position += 8
            if tag == _SEQUENCE_END and delimited:
                return items, position
            if tag != _ITEM:
                raise UnreadableInstance(
                    "sequence_invalid", f"{tag_text(tag)} stands where a sequence item must."
                )
            self.budget -= 1
            if self.budget < 0:
                raise UnreadableInstance(
                    "too_many_elements", f"The header has more than {self.limits.elements} elements."
                )
            if length == _UNDEFINED:
                item, position = self.dataset(position, end, depth + 1, True, implicit)
            elif position + length > end:
                raise _past_end(tag, length)
            else:
                item, position = self.dataset(position, position + length, depth + 1, False, implicit)
            items.append(item)
        if delimited:
            raise UnreadableInstance("truncated", "A sequence has no end.")
        return items, position

    def _fragments(self, position: int, end: int) -> int:
        """Walk encapsulated pixel data and return where its delimiter ends (PS3.5 A.4)."""
        for _ in range(self.limits.fragments):
            if position + 8 > end:
                raise UnreadableInstance("pixel_data_truncated", "The compressed pixel data breaks off.")
            group, number, length = self.tag_length(self.data, position)
            tag = group << 16 | number
            position += 8
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM or position + length > end:
                raise UnreadableInstance(
                    "pixel_data_truncated", "A fragment of the compressed pixel data is damaged."
                )
            position += length
        raise UnreadableInstance("too_many_fragments", "The compressed pixel data has too many fragments.")
