"""The same profile applied with pydicom: slow, independent of our reader and writer, and what they are held to.

It shares the profile and the replacement values with the engine, not the parsing, walking and writing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.valuerep import PersonName

from sites_app.deid.profile import Action, Profile
from sites_app.deid.values import UidMap, shift_dates

ADDED_TAGS = (0x00120020, 0x00120040, 0x00120062, 0x00120063, 0x00120064, 0x00280303)
_PIXEL_GROUP = 0x7FE0
_NUMBER_VRS = frozenset("US SS UL SL FL FD SV UV".split())


class ReferenceDeidentifier:
    """Applies a profile to a pydicom dataset; `clean` turns a top-level descriptor into its cleaned text."""

    def __init__(
        self, profile: Profile, key: bytes, subject_code: str, days: int, clean: Callable[[int, str], str]
    ) -> None:
        self._profile, self._map_uid = profile, UidMap(key)
        self._subject, self._days, self._clean = subject_code, days, clean

    def process(self, data: bytes) -> Dataset:
        """Return the de-identified dataset without pixel data and without what the engine adds."""
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=data[128:132] != b"DICM")
        sop_class = str(dataset.SOPClassUID)
        result = Dataset()
        for element in self._elements(dataset, sop_class, top=True):
            result.add(element)
        return result

    def _elements(self, dataset: Dataset, sop_class: str, top: bool) -> Iterator[DataElement]:
        creators: dict[tuple[int, str], DataElement] = {}
        for element in dataset:
            tag = int(element.tag)
            if element.tag.group == _PIXEL_GROUP:
                continue
            if element.tag.is_private:
                yield from self._private(element, creators)
                continue
            action = self._profile.action(tag)
            if action is Action.REMOVE and self._profile.kept_characteristic(tag, sop_class):
                action = Action.KEEP
            changed = self._changed(element, action, sop_class, top)
            if changed is not None:
                yield changed

    def _private(
        self, element: DataElement, creators: dict[tuple[int, str], DataElement]
    ) -> Iterator[DataElement]:
        if element.tag.is_private_creator:
            creators[(element.tag.group, str(element.value).strip())] = element
            return
        creator = (element.private_creator or "").strip()
        known = self._profile.private_vr(creator, element.tag.group, element.tag.element & 0xFF)
        if known and element.VR in _NUMBER_VRS | {"DS", "IS", "CS"}:
            reservation = creators.pop((element.tag.group, creator), None)
            if reservation is not None:
                yield reservation
            yield element

    def _changed(self, element: DataElement, action: Action, sop_class: str, top: bool) -> DataElement | None:
        tag, vr = element.tag, element.VR
        if vr == "SQ":
            if action is not Action.RECURSE:
                return None
            items = []
            for item in element.value:
                copy = Dataset()
                for child in self._elements(item, sop_class, top=False):
                    copy.add(child)
                items.append(copy)
            return DataElement(tag, "SQ", Sequence(items))
        if action is Action.KEEP:
            return element
        if action is Action.CLEAN:
            return DataElement(tag, vr, self._clean(int(tag), _joined(element))) if top else None
        if action in (Action.REMOVE, Action.RECURSE):
            return None
        return DataElement(tag, vr, self._replacement(element, action))

    def _replacement(self, element: DataElement, action: Action) -> str:
        text = _joined(element)
        if action is Action.SUBJECT:
            return self._subject
        if action is Action.SHIFT_DATE:
            shifted = shift_dates(element.VR, text.encode("latin-1", "replace"), self._days)
            return (shifted or b"").decode()
        if action is Action.MAP_UID or (action is Action.DUMMY and element.VR == "UI"):
            return "\\".join(self._uid(uid) for uid in text.split("\\"))
        if action is Action.DUMMY and text.strip() and element.VR not in ("DA", "TM", "DT", "DS", "IS", "AS"):
            return "REMOVED"
        return ""

    def _uid(self, uid: str) -> str:
        return uid if not uid or uid.startswith("1.2.840.10008.") else self._map_uid(uid)


def cross_check(data: bytes, written: bytes, reference: ReferenceDeidentifier) -> list[str]:
    """Return where the engine's file `written` differs from what the reference makes of the original `data`.

    Left out are the elements that say what was done and pixel data. For the first file of a series, say.
    """
    engine = pydicom.dcmread(io.BytesIO(written), stop_before_pixels=True)
    for tag in ADDED_TAGS:
        if tag in engine:
            del engine[tag]
    return differences(engine, reference.process(data))


def _joined(element: DataElement) -> str:
    value = element.value
    if value is None:
        return ""
    if isinstance(value, (list, MultiValue)):
        return "\\".join(str(getattr(item, "original_string", item)) for item in value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, PersonName):
        return str(value)
    return str(getattr(value, "original_string", value))


def differences(left: Dataset, right: Dataset, path: str = "") -> list[str]:
    """Return where two datasets differ in tags, VRs or values, at every nesting level."""
    found = []
    for tag in sorted({*left.keys(), *right.keys()}):
        place = f"{path}{tag}"
        if tag not in left or tag not in right:
            found.append(f"{place}: only in the {'left' if tag in left else 'right'}")
            continue
        one, other = left[tag], right[tag]
        if one.VR == "SQ" and other.VR == "SQ":
            if len(one.value) != len(other.value):
                found.append(f"{place}: {len(one.value)} and {len(other.value)} items")
            for index, (first, second) in enumerate(zip(one.value, other.value, strict=False)):
                found += differences(first, second, f"{place}[{index}]>")
        elif one.VR != other.VR or _joined(one) != _joined(other):
            found.append(f"{place}: {one.VR} {_joined(one)!r} and {other.VR} {_joined(other)!r}")
    return found
