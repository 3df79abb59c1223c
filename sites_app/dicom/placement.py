"""Reads where an instance's frames lie and how large they are (PS3.3 C.7.6.2, C.7.6.16.2.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sites_app.dicom.parameters import BINARY_CODES, Unparsable, find, functional_groups, read_number
from sites_app.dicom.reader import Element, ParsedFile

_POSITION_PATH = (0x00209113, 0x00200032)
_ORIENTATION_PATH = (0x00209116, 0x00200037)
_VOLUME_TAGS = (0x00200100, 0x00180086, 0x00200012)
_POSITION_COMPONENTS = 3
_MAX_FRAMES = 1_000_000


def read_integer(parsed: ParsedFile, tag: int) -> int | None:
    """Return a top-level whole number of VR IS, US or UL, None where it is absent or not one."""
    element, raw = parsed.elements.get(tag), parsed.raw(tag)
    if element is None or not raw:
        return None
    try:
        if element.vr in ("US", "SS", "UL", "SL"):
            code = BINARY_CODES[element.vr]
            return int(struct.unpack_from(("<" if parsed.little else ">") + code, raw)[0])
        return int(raw.decode("latin-1").strip("\0 ")[:12])
    except (ValueError, struct.error):
        return None


def _floats(parsed: ParsedFile, element: Element | None) -> tuple[float, ...]:
    if element is None or element.items is not None or element.vr not in ("DS", "FD", "FL", "UN", "LO", "SH"):
        return ()
    raw = parsed.data[element.value_start : element.value_end]
    try:
        if element.vr in ("FD", "FL"):
            code = BINARY_CODES[element.vr]
            count = len(raw) // struct.calcsize(code)
            return tuple(
                map(read_number, struct.unpack(f"{'<' if parsed.little else '>'}{count}{code}", raw))
            )
        return tuple(
            read_number(part.strip()) for part in raw[:512].decode("latin-1").strip("\0 ").split("\\")
        )
    except (Unparsable, struct.error):
        return ()


def read_positions(parsed: ParsedFile) -> tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]]:
    """Return ImagePositionPatient of each frame (mm) and ImageOrientationPatient of the first (PS3.3 C.7.6.2).

    Positions are empty where any frame lacks a readable one.
    """
    shared, frames = functional_groups(parsed)
    if not frames:
        position = _floats(parsed, parsed.elements.get(0x00200032))
        orientation = _floats(parsed, parsed.elements.get(0x00200037))
        return tuple(_places([position])), orientation
    if len(frames) > _MAX_FRAMES:
        return (), ()
    common = _floats(parsed, find(shared, _POSITION_PATH))
    positions = _places(_floats(parsed, find(frame, _POSITION_PATH)) or common for frame in frames)
    orientation = _floats(parsed, find(shared, _ORIENTATION_PATH)) or _floats(
        parsed, find(frames[0], _ORIENTATION_PATH)
    )
    return tuple(positions), orientation


def _places(positions: Iterable[tuple[float, ...]]) -> list[tuple[float, float, float]]:
    """Return the positions, or nothing where any is not of three components."""
    places = []
    for position in positions:
        if len(position) != _POSITION_COMPONENTS:
            return []
        places.append((position[0], position[1], position[2]))
    return places


def read_temporal_position(parsed: ParsedFile) -> str:
    """Return what tells volumes at one slice position apart, as text: temporal index, echo, b-value and the like.

    "" for a multi-frame object, whose frames repeat a position once for each volume.
    """
    parts = []
    for tag in _VOLUME_TAGS:
        raw = parsed.raw(tag)
        parts.append(
            raw[:64].decode("latin-1").strip("\0 ") if raw and parsed.elements[tag].vr != "FD" else ""
        )
    return "|".join(parts) if any(parts) else ""
