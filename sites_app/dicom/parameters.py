"""Reads acquisition parameters and geometry out of a parsed file, before anything is removed from it."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sites_app.dicom.catalogue import PARAMETERS, ParameterDefinition, Path
from sites_app.dicom.observations import Value
from sites_app.dicom.reader import Dataset, Element, ParsedFile, tag_text

SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
_MAX_VALUE_BYTES = 4096
_MAX_DISTINCT_PER_FRAME = 4096

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
_DATE = re.compile(r"(\d{4})\.?(0[1-9]|1[0-2])\.?(0[1-9]|[12]\d|3[01])")
_TIME = re.compile(r"([01]\d|2[0-3])(:?[0-5]\d(:?([0-5]\d|60)(\.\d{1,6})?)?)?")
_DATETIME = re.compile(r"\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?")
BINARY_CODES = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_TEXT_VRS = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UN UR UT".split())
_ENCODINGS = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk", "ISO_IR 13": "shift_jis"}
_BOOLEANS = {"YES": True, "Y": True, "NO": False, "N": False}
# Enhanced objects spell the classic values ROW and COL as ROW and COLUMN (PS3.3 C.8.13.5.3).
_ALIASES = {"InPlanePhaseEncodingDirection": {"COLUMN": "COL"}}


Rewrite = Mapping[int, Callable[[bytes], bytes]]


class Unparsable(ValueError):
    """The value cannot be read as its parameter's kind."""


@dataclass(slots=True)
class Parameters:
    """What a file says of its acquisition; `varying` holds (value or None, frames) where frames differ."""

    values: dict[str, Value] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unparsable: list[str] = field(default_factory=list)
    varying: dict[str, tuple[tuple[Value | None, int], ...]] = field(default_factory=dict)


def decode_text(raw: bytes, charset: str = "") -> str:
    """Return a text value decoded by its file's first SpecificCharacterSet (0008,0005), never failing."""
    text = raw.decode(_ENCODINGS.get(charset, "latin-1"), "replace")
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return text.strip()


def convert(
    definition: ParameterDefinition, vr: str, raw: bytes, little: bool, charset: str = ""
) -> Value | None:
    """Return a parameter's value in the catalogue's unit, None where the element is empty.

    Raises Unparsable for NaN, infinity, impossible dates and whatever is not of the definition's kind.
    """
    if len(raw) > _MAX_VALUE_BYTES:
        raise Unparsable(definition.keyword)
    parts: list[Any]
    if vr in BINARY_CODES:
        code = BINARY_CODES[vr]
        size = struct.calcsize(code)
        if len(raw) % size:
            raise Unparsable(definition.keyword)
        parts = list(struct.unpack(f"{'<' if little else '>'}{len(raw) // size}{code}", raw))
        if vr == "FL":
            # A 32-bit float is read at its own precision, so that 2.4 does not become 2.4000000953674316.
            parts = [float(f"{part:.7g}") for part in parts]
    elif vr in _TEXT_VRS:
        text = decode_text(raw.strip(b"\0 "), charset)
        parts = [part.strip() for part in text.split("\\")] if text else []
    else:
        raise Unparsable(definition.keyword)
    if not any(part != "" for part in parts):
        return None
    return _KINDS[definition.kind](definition, parts)


def read_number(part: Any) -> float:
    if isinstance(part, str):
        if not _NUMBER.fullmatch(part):
            raise Unparsable(part)
        part = float(part)
    if not math.isfinite(part):
        raise Unparsable("not finite")
    return float(part)


def _numbers(definition: ParameterDefinition, parts: list[Any]) -> Value:
    numbers = tuple(read_number(part) for part in parts)
    return numbers[0] if len(numbers) == 1 else numbers


def _integers(definition: ParameterDefinition, parts: list[Any]) -> Value:
    numbers = [read_number(part) for part in parts]
    if any(number != int(number) for number in numbers):
        raise Unparsable(definition.keyword)
    return int(numbers[0]) if len(numbers) == 1 else tuple(int(number) for number in numbers)


def _vector(definition: ParameterDefinition, parts: list[Any]) -> Value:
    return tuple(read_number(part) for part in parts)


def _text(definition: ParameterDefinition, parts: list[Any]) -> Value:
    text = "\\".join(str(part) for part in parts)
    return _ALIASES.get(definition.keyword, {}).get(text, text)


def _text_list(definition: ParameterDefinition, parts: list[Any]) -> Value:
    return tuple(str(part) for part in parts)


def _boolean(definition: ParameterDefinition, parts: list[Any]) -> Value:
    if len(parts) != 1 or str(parts[0]).upper() not in _BOOLEANS:
        raise Unparsable(definition.keyword)
    return _BOOLEANS[str(parts[0]).upper()]


def _matching(pattern: re.Pattern[str]) -> Callable[[ParameterDefinition, list[Any]], Value]:
    def read(definition: ParameterDefinition, parts: list[Any]) -> Value:
        if len(parts) != 1 or not pattern.fullmatch(str(parts[0])):
            raise Unparsable(definition.keyword)
        return str(parts[0])

    return read


_KINDS: dict[str, Callable[[ParameterDefinition, list[Any]], Value]] = {
    "number": _numbers,
    "integer": _integers,
    "vector": _vector,
    "text": _text,
    "text_list": _text_list,
    "boolean": _boolean,
    "date": _matching(_DATE),
    "time": _matching(_TIME),
    "datetime": _matching(_DATETIME),
}


class ParameterReader:
    """Reads parameters of many files, converting each distinct value of a series once.

    `rewrite` maps (tag, VR, raw bytes) to the bytes the parameter is read from: de-identification passes the
    shifting of dates and the cleaning of descriptors here, so nothing unshifted or uncleaned is ever kept.
    """

    def __init__(self) -> None:
        self._memo: dict[tuple[str, str, bytes, bool, str], Value | None | Unparsable] = {}
        self._by_modality: dict[str, tuple[ParameterDefinition, ...]] = {}

    def read(self, parsed: ParsedFile, modality: str, rewrite: Rewrite) -> Parameters:
        """Return the parameters of one file in the catalogue's units, with the tag each was read from."""
        found = Parameters()
        charset = parsed.text(0x00080005).split("\\")[0]
        shared, frames = functional_groups(parsed)
        elements = parsed.elements
        for definition in self._definitions(modality):
            if len(definition.tag) == 1:
                element = elements.get(definition.tag[0])
            else:
                element = find(elements, definition.tag) if definition.tag else None
            if element is not None and element.items is None and element.value_end > element.value_start:
                self._take(found, definition, path_text(definition.tag), element, parsed, charset, rewrite)
            elif not self._read_enhanced(found, definition, parsed, charset, rewrite, shared, frames):
                self._read_private(found, definition, parsed, charset, rewrite)
        return found

    def _definitions(self, modality: str) -> tuple[ParameterDefinition, ...]:
        if modality not in self._by_modality:
            known = modality in {"MR", "CT", "PT"}
            self._by_modality[modality] = tuple(
                item
                for item in PARAMETERS.values()
                if not item.derived
                and (modality in item.modalities or not known and len(item.modalities) > 2)
            )
        return self._by_modality[modality]

    def _convert(
        self, definition: ParameterDefinition, element: Element, raw: bytes, parsed: ParsedFile, charset: str
    ) -> Value | None | Unparsable:
        key = (definition.keyword, element.vr, raw, parsed.little, charset)
        if key not in self._memo:
            if len(self._memo) > 50_000:
                self._memo.clear()
            try:
                self._memo[key] = convert(definition, element.vr, raw, parsed.little, charset)
            except (Unparsable, OverflowError) as error:
                self._memo[key] = Unparsable(str(error))
        return self._memo[key]

    def _take(
        self,
        found: Parameters,
        definition: ParameterDefinition,
        source: str,
        element: Element,
        parsed: ParsedFile,
        charset: str,
        rewrite: Rewrite,
    ) -> None:
        raw = parsed.data[element.value_start : element.value_end]
        change = rewrite.get(element.tag)
        if change is not None:
            raw = change(raw)
        value = self._convert(definition, element, raw, parsed, charset)
        if isinstance(value, Unparsable):
            found.unparsable.append(definition.keyword)
        elif value is not None:
            found.values[definition.keyword] = value
            found.sources[definition.keyword] = source

    def _read_enhanced(
        self,
        found: Parameters,
        definition: ParameterDefinition,
        parsed: ParsedFile,
        charset: str,
        rewrite: Rewrite,
        shared: Dataset | None,
        frames: list[Dataset],
    ) -> bool:
        for path in definition.enhanced:
            for start, prefix in ((parsed.elements, ()), (shared, (SHARED_GROUPS,))):
                element = find(start, path) if start else None
                if element is not None and element.items is None and element.value_end > element.value_start:
                    source = path_text((*prefix, *path))
                    self._take(found, definition, source, element, parsed, charset, rewrite)
                    return True
            if frames and self._read_frames(found, definition, path, parsed, charset, frames):
                return True
        return False

    def _read_private(
        self,
        found: Parameters,
        definition: ParameterDefinition,
        parsed: ParsedFile,
        charset: str,
        rewrite: Rewrite,
    ) -> None:
        for creator, group, number in definition.private:
            element = find_private(parsed, creator, group, number)
            if element is not None and element.value_end > element.value_start:
                # Under VR UN (implicit VR) the value's form is not known; numbers as text are still read.
                source = f"({group:04X},xx{number:02X}) {creator}"
                self._take(found, definition, source, element, parsed, charset, rewrite)
                return

    def _read_frames(
        self,
        found: Parameters,
        definition: ParameterDefinition,
        path: Path,
        parsed: ParsedFile,
        charset: str,
        frames: list[Dataset],
    ) -> bool:
        counts: Counter[Value | None] = Counter()
        for frame in frames:
            element = find(frame, path)
            value: Value | None | Unparsable = None
            if element is not None and element.items is None:
                raw = parsed.data[element.value_start : element.value_end]
                value = self._convert(definition, element, raw, parsed, charset)
            if isinstance(value, Unparsable) or len(counts) > _MAX_DISTINCT_PER_FRAME:
                found.unparsable.append(definition.keyword)
                return True
            counts[value] += 1
        if set(counts) == {None}:
            return False
        if len(counts) == 1:
            found.values[definition.keyword] = next(value for value in counts if value is not None)
        else:
            found.varying[definition.keyword] = tuple(counts.most_common())
        found.sources[definition.keyword] = path_text((FRAME_GROUPS, *path))
        return True


def find(dataset: Dataset | None, path: Iterable[int]) -> Element | None:
    """Return the element at the end of `path`, going through the first item of each sequence."""
    element: Element | None = None
    for tag in path:
        if element is not None:
            dataset = element.items[0] if element.items else None
        if dataset is None:
            return None
        element = dataset.get(tag)
        if element is None:
            return None
    return element


def find_private(parsed: ParsedFile, creator: str, group: int, number: int) -> Element | None:
    """Return the top-level private element of a creator's block (PS3.5 7.8.1)."""
    for block in range(0x10, 0x100):
        reservation = parsed.elements.get(group << 16 | block)
        if reservation is None:
            if block > 0x1F:
                return None
            continue
        if parsed.text(group << 16 | block) == creator:
            element = parsed.elements.get(group << 16 | block << 8 | number)
            return element if element is not None and element.items is None else None
    return None


@lru_cache(maxsize=4096)
def path_text(path: Path) -> str:
    """Return a path of tags as (gggg,eeee)>(gggg,eeee)."""
    return ">".join(tag_text(tag) for tag in path)


def functional_groups(parsed: ParsedFile) -> tuple[Dataset | None, list[Dataset]]:
    """Return the shared functional group item, if any, and the per-frame items (PS3.3 C.7.6.16)."""
    shared = parsed.elements.get(SHARED_GROUPS)
    frames = parsed.elements.get(FRAME_GROUPS)
    return (
        shared.items[0] if shared is not None and shared.items else None,
        frames.items if frames is not None and frames.items else [],
    )
