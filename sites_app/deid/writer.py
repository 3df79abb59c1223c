"""Writes the de-identified elements of a parsed file, copying what stays and replacing what does not."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from pydicom._dicom_dict import DicomDictionary

from sites_app.deid.profile import Action, Profile
from sites_app.deid.values import UidMap, shift_dates
from sites_app.dicom.reader import PIXEL_TAGS, UID_PATTERN, Dataset, Element, ParsedFile, tag_text

IMPLEMENTATION_CLASS_UID = "2.25.302934517190664297317561214890571604611"
IMPLEMENTATION_VERSION_NAME = "HUB_DEID_1"
_LONG_VRS = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_PROSE_VRS = frozenset({"LT", "ST", "UT", "UC", "UR", "PN"})
_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "SV": 8, "UV": 8}
_NUMERIC_STRING = re.compile(rb"[0-9+\-.eE \\]*")
_CODE_STRING = re.compile(rb"[A-Z0-9_ \\]*")
_STANDARD_UIDS = "1.2.840.10008."
_MEMO_ELEMENT_BYTES, _MEMO_TOTAL_BYTES, _MEMO_ENTRY_BYTES = 1 << 16, 1 << 25, 300
_TEXT_BYTES = 1024

_REMOVED = Action.REMOVE.name

Change = tuple[str, str]


@dataclass(slots=True)
class Written:
    """The header of one file after de-identification, the original UIDs in it, and what was done to which tag."""

    chunks: list[bytes] = field(default_factory=list)
    uids: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Outcome:
    out: bytes
    uids: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()


def encode_element(tag: int, vr: str, value: bytes, implicit: bool, little: bool) -> bytes:
    """Return one element's bytes, padded to an even length (PS3.5 7.1)."""
    order = "<" if little else ">"
    if len(value) & 1:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    if implicit:
        return struct.pack(order + "HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr in _LONG_VRS:
        return struct.pack(order + "HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def encode_sequence(tag: int, items: list[bytes], implicit: bool, little: bool) -> bytes:
    """Return a sequence of encoded items, all with defined lengths."""
    order = "<" if little else ">"
    body = b"".join(struct.pack(order + "HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return encode_element(tag, "SQ", body, implicit, little)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return a zero preamble, the prefix and new file meta information (PS3.10 7.1); nothing old survives."""
    body = b"".join(
        encode_element(tag, vr, value, False, True)
        for tag, vr, value in (
            (0x00020001, "OB", b"\0\1"),
            (0x00020002, "UI", sop_class_uid.encode()),
            (0x00020003, "UI", sop_instance_uid.encode()),
            (0x00020010, "UI", transfer_syntax_uid.encode()),
            (0x00020012, "UI", IMPLEMENTATION_CLASS_UID.encode()),
            (0x00020013, "SH", IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )
    return (
        bytes(128)
        + b"DICM"
        + encode_element(0x00020000, "UL", struct.pack("<I", len(body)), False, True)
        + body
    )


class DatasetWriter:
    """Applies a profile for one subject; memoises by element bytes over the files of a series."""

    def __init__(self, profile: Profile, map_uid: UidMap, subject_code: str, days: int) -> None:
        self._profile, self._map_uid = profile, map_uid
        self._subject, self._days = subject_code.encode("ascii"), days
        self._memos: dict[tuple[bool, bool, str], dict[bytes, _Outcome]] = {}
        self._memo_bytes = 0
        self._actions: dict[int, Action] = {}
        self._private_rules: dict[tuple[str, int, int], tuple[str, Change]] = {}

    def write(
        self,
        parsed: ParsedFile,
        sop_class_uid: str,
        added: list[tuple[int, bytes]],
        clean: Callable[[bytes], bytes],
    ) -> Written:
        """Return the file's elements up to the pixel data; `added` are encoded elements in order of their tags."""
        written = Written()
        memo = self._memos.setdefault((parsed.implicit, parsed.little, sop_class_uid), {})
        pending = list(reversed(added))
        creators: dict[int, tuple[str, int]] = {}
        data, chunks = parsed.data, written.chunks
        elements = parsed.elements
        for tag in sorted(elements) if parsed.disordered else elements:
            while pending and tag > pending[-1][0]:
                chunks.append(pending.pop()[1])
            if tag in PIXEL_TAGS:
                break
            element = elements[tag]
            if tag & 0x10000:
                self._private(parsed, element, creators, written)
                continue
            raw = data[element.start : element.end]
            outcome = memo.get(raw)
            if outcome is None:
                outcome = self._outcome(parsed, element, sop_class_uid, clean)
                if outcome is None:
                    outcome = self._cleaned(parsed, element, clean)
                else:
                    self._remember(memo, raw, outcome)
            _append(written, outcome)
        chunks.extend(encoded for _, encoded in reversed(pending))
        return written

    def _remember(self, memo: dict[bytes, _Outcome], raw: bytes, outcome: _Outcome) -> None:
        """Memoise within a bound of bytes, which no file can pass."""
        if len(raw) > _MEMO_ELEMENT_BYTES:
            return
        self._memo_bytes += 2 * len(raw) + _MEMO_ENTRY_BYTES
        if self._memo_bytes > _MEMO_TOTAL_BYTES:
            for each in self._memos.values():
                each.clear()
            self._memo_bytes = 0
        memo[raw] = outcome

    def _cleaned(self, parsed: ParsedFile, element: Element, clean: Callable[[bytes], bytes]) -> _Outcome:
        """Clean a descriptor; not memoised, since the identifiers it is cleaned of differ between files."""
        value = clean(parsed.data[element.value_start : element.value_end])
        encoded = encode_element(element.tag, _vr(element), value, parsed.implicit, parsed.little)
        return _Outcome(encoded, (), ((Action.CLEAN.name, tag_text(element.tag)),))

    def _outcome(
        self, parsed: ParsedFile, element: Element, sop_class_uid: str, clean: Callable[[bytes], bytes] | None
    ) -> _Outcome | None:
        """Return what becomes of a public element, None where it is a top-level descriptor to be cleaned."""
        tag = element.tag
        action = self._actions.get(tag)
        if action is None:
            action = self._actions[tag] = self._profile.action(tag)
        if action is Action.REMOVE and self._profile.kept_characteristic(tag, sop_class_uid):
            action = Action.KEEP
        if element.items is not None:
            if action is not Action.RECURSE or element.vr != "SQ":
                return _removed(tag)
            return self._sequence(parsed, element, sop_class_uid)
        raw = parsed.data[element.value_start : element.value_end]
        if action is Action.CLEAN:
            return None if clean is not None and len(raw) <= _TEXT_BYTES else _removed(tag)
        if action is Action.KEEP:
            return self._kept(parsed, element, raw)
        if action in (Action.REMOVE, Action.RECURSE):
            return _removed(tag)
        return self._replaced(parsed, element, raw, action)

    def _kept(self, parsed: ParsedFile, element: Element, raw: bytes) -> _Outcome:
        """Keep an element byte for byte where its value is of the kind its tag promises."""
        vr, declared = _vr(element), element.vr
        if declared in ("UN", "SQ") or (declared in _PROSE_VRS and declared != vr):
            return _removed(element.tag)
        if vr in ("DS", "IS") and declared in ("DS", "IS", "LO", "SH", "CS"):
            if not _NUMERIC_STRING.fullmatch(raw.strip(b"\0 ")):
                return _removed(element.tag)
        if (
            declared not in _SIZES
            and vr not in ("OB", "OW", "US", "SS")
            and len(raw) > _TEXT_BYTES
            and vr != "DS"
        ):
            return _removed(element.tag)
        return _Outcome(parsed.data[element.start : element.end])

    def _replaced(self, parsed: ParsedFile, element: Element, raw: bytes, action: Action) -> _Outcome:
        tag, vr = element.tag, _vr(element)
        uids: tuple[str, ...] = ()
        value: bytes | None
        if action is Action.SUBJECT:
            value = self._subject
        elif action is Action.SHIFT_DATE:
            value = shift_dates(vr, raw, self._days)
            action = Action.EMPTY if value is None else action
        elif action is Action.MAP_UID or (action is Action.DUMMY and vr == "UI"):
            value, uids = self._mapped(raw)
            action = Action.MAP_UID
        elif action is Action.DUMMY:
            if vr in _SIZES or vr in _LONG_VRS and vr not in ("UT", "UC"):
                return _removed(tag)
            value = (
                b"REMOVED" if raw.strip(b"\0 ") and vr not in ("DA", "TM", "DT", "DS", "IS", "AS") else b""
            )
        else:
            value = b""
        encoded = encode_element(tag, vr, value or b"", parsed.implicit, parsed.little)
        if encoded == parsed.data[element.start : element.end]:
            return _Outcome(encoded, uids)
        return _Outcome(encoded, uids, ((action.name, tag_text(tag)),))

    def _mapped(self, raw: bytes) -> tuple[bytes, tuple[str, ...]]:
        values, originals = [], []
        for part in raw.decode("latin-1").split("\\"):
            uid = part.strip("\0 ")
            if not UID_PATTERN.fullmatch(uid):
                values.append("")
            elif uid.startswith(_STANDARD_UIDS):
                values.append(uid)
            else:
                values.append(self._map_uid(uid))
                originals.append(uid)
        return "\\".join(values).encode(), tuple(originals)

    def _sequence(self, parsed: ParsedFile, element: Element, sop_class_uid: str) -> _Outcome:
        uids: list[str] = []
        changes: dict[Change, None] = {}
        items = []
        for item in element.items or ():
            written = self._item(parsed, item, sop_class_uid)
            items.append(b"".join(written.chunks))
            uids += written.uids
            changes.update(
                dict.fromkeys((action, f"{tag_text(element.tag)}>{tag}") for action, tag in written.changes)
            )
        out = encode_sequence(element.tag, items, parsed.implicit, parsed.little)
        return _Outcome(out, tuple(uids), tuple(changes))

    def _item(self, parsed: ParsedFile, item: Dataset, sop_class_uid: str) -> Written:
        written = Written()
        memo = self._memos[(parsed.implicit, parsed.little, sop_class_uid)]
        creators: dict[int, tuple[str, int]] = {}
        for tag in sorted(item) if parsed.disordered else item:
            element = item[tag]
            if tag & 0x10000:
                self._private(parsed, element, creators, written)
                continue
            # The leading byte parts the memo of items from that of the top level, where descriptors are cleaned.
            raw = b"i" + parsed.data[element.start : element.end]
            outcome = memo.get(raw)
            if outcome is None:
                outcome = self._outcome(parsed, element, sop_class_uid, None) or _removed(tag)
                self._remember(memo, raw, outcome)
            _append(written, outcome)
        return written

    def _private(
        self, parsed: ParsedFile, element: Element, creators: dict[int, tuple[str, int]], written: Written
    ) -> None:
        """Keep a private element only where its creator is known for it and its value is of the known kind."""
        group, number = element.tag >> 16, element.tag & 0xFFFF
        raw_length = element.value_end - element.value_start
        if 0x10 <= number <= 0xFF:
            if element.items is None and raw_length <= 64:
                name = parsed.data[element.value_start : element.value_end].decode("latin-1").strip("\0 ")
                creators[group << 8 | number] = (name, len(written.chunks))
                written.chunks.append(b"")
            return
        creator = creators.get(group << 8 | number >> 8)
        key = (creator[0] if creator is not None else "", group, number & 0xFF)
        known = self._private_rules.get(key)
        if known is None:
            change = (_REMOVED, f"({group:04X},xx{number & 0xFF:02X})")
            known = self._private_rules[key] = (self._profile.private_vr(*key), change)
        if creator is None or not known[0] or element.items is not None or raw_length > _TEXT_BYTES:
            written.changes.append(known[1])
            return
        if not _fits(element.vr, known[0], parsed.data[element.value_start : element.value_end]):
            written.changes.append(known[1])
            return
        name, index = creator
        if not written.chunks[index]:
            tag = group << 16 | number >> 8
            written.chunks[index] = encode_element(
                tag, "LO", name.encode("latin-1"), parsed.implicit, parsed.little
            )
        written.chunks.append(parsed.data[element.start : element.end])


def _fits(declared: str, known: str, raw: bytes) -> bool:
    """True where a private value is a number or a code, as the known VR says."""
    vr = known if declared == "UN" else declared
    if vr in _SIZES:
        return vr != "AT" and len(raw) % _SIZES[vr] == 0 and (declared != "UN" or known in _SIZES)
    if vr in ("DS", "IS"):
        return _NUMERIC_STRING.fullmatch(raw.strip(b"\0 ")) is not None
    return vr == "CS" and known == "CS" and _CODE_STRING.fullmatch(raw.strip(b"\0 ")) is not None


def _append(written: Written, outcome: _Outcome) -> None:
    if outcome.out:
        written.chunks.append(outcome.out)
    if outcome.uids:
        written.uids.update(outcome.uids)
    if outcome.changes:
        written.changes += outcome.changes


def _removed(tag: int) -> _Outcome:
    return _Outcome(b"", (), ((_REMOVED, tag_text(tag)),))


def _vr(element: Element) -> str:
    """Return the dictionary's VR where it has only one, else the file's."""
    entry = DicomDictionary.get(element.tag)
    if entry is None or " or " in entry[0]:
        return element.vr
    return entry[0]
