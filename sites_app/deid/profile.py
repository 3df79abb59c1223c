"""The de-identification profile: which attribute is kept, removed or changed, as versioned data with a digest.

Actions follow DICOM PS3.15 Annex E (table E.1-1). The Basic Profile's table is taken at run time from the
`dicom-anonymizer` package; options and the allow-list of text attributes are ours and listed here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

from pydicom._dicom_dict import DicomDictionary

from hub.core.canonical import digest
from sites_app.deid.lists import (
    ACCEPTED_SOP_CLASSES,
    BURNED_IN_RISK_SOP_CLASSES,
    CLEANED_DESCRIPTORS,
    DEVICE_IDENTITY,
    IDENTIFYING_DATES,
    KEPT_TEXT,
    OVERRIDES,
    PATIENT_CHARACTERISTICS,
    SAFE_PRIVATE,
)

TABLE_MODULE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
_CATEGORIES = {
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}
_TEXT_VRS = frozenset("AE AS LO LT PN SH ST UC UN UR UT".split())
_BINARY_VRS = frozenset("OB OD OF OL OV OW".split())
_REMOVED_GROUPS = frozenset({0x0012, 0xFFFA, 0xFFFC})
"""Clinical trial attributes (written anew), digital signatures, trailing padding."""
_MASKED_GROUPS = frozenset({0x5000, 0x6000})
"""Curves and overlays, which repeat over 50xx and 60xx."""
_TIMEZONE_OFFSET = 0x00080201
_DATE_VRS = frozenset({"DA", "DT", "TM"})


class Action(IntEnum):
    """What is done with one element."""

    KEEP = 0
    REMOVE = 1
    EMPTY = 2
    DUMMY = 3
    MAP_UID = 4
    SHIFT_DATE = 5
    CLEAN = 6
    SUBJECT = 7
    RECURSE = 8


_TABLE_ACTIONS = {
    "X": Action.REMOVE,
    "Z": Action.EMPTY,
    "D": Action.DUMMY,
    "U": Action.MAP_UID,
    "Z/D": Action.EMPTY,
    "X/Z": Action.EMPTY,
    "X/D": Action.REMOVE,
    "X/Z/D": Action.EMPTY,
    "X/Z/U*": Action.RECURSE,
}


@dataclass(frozen=True)
class Profile:
    """A de-identification profile: PS3.15 Basic Profile with options (E.3), as plain data.

    `retain_suv_inputs` keeps PatientWeight and PatientSize in PET objects only, without which no SUV can be
    computed (Retain Patient Characteristics Option, limited).
    """

    name: str = "hub-basic"
    version: str = "1.0.0"
    table: str = TABLE_MODULE
    retain_device_identity: bool = True
    retain_safe_private: bool = True
    modified_dates: bool = True
    clean_descriptors: bool = True
    retain_suv_inputs: bool = True
    accepted_sop_classes: Mapping[str, str] = field(default_factory=lambda: dict(ACCEPTED_SOP_CLASSES))
    burned_in_risk_sop_classes: Mapping[str, str] = field(
        default_factory=lambda: dict(BURNED_IN_RISK_SOP_CLASSES)
    )

    def to_json(self) -> dict[str, Any]:
        """Return the profile's options, with every resolved action, as canonical data."""
        document = asdict(self)
        document["actions"] = {f"{tag:08X}": action.name for tag, action in sorted(self._actions.items())}
        document["kept_text"] = [f"{tag:08X}" for tag in sorted(KEPT_TEXT)]
        document["safe_private"] = sorted(
            f"{creator}|{group:04X}|{number:02X}|{vr}"
            for (creator, group, number), vr in SAFE_PRIVATE.items()
        )
        return document

    @cached_property
    def digest(self) -> str:
        return digest(self.to_json())

    @cached_property
    def _actions(self) -> dict[int, Action]:
        actions = {tag: _TABLE_ACTIONS[code] for tag, code in basic_profile_table(self.table).items()}
        for tag in list(actions):
            if _dictionary_vr(tag) in _DATE_VRS and self.modified_dates and tag not in IDENTIFYING_DATES:
                actions[tag] = Action.SHIFT_DATE
        if self.retain_device_identity:
            actions.update({tag: Action.KEEP for tag in DEVICE_IDENTITY})
        if self.clean_descriptors:
            actions.update({tag: Action.CLEAN for tag in CLEANED_DESCRIPTORS})
        actions.update({tag: Action[name] for tag, name in OVERRIDES.items()})
        if self.modified_dates:
            # Without the zone the shifted times could not be compared between files.
            actions[_TIMEZONE_OFFSET] = Action.KEEP
        return actions

    def action(self, tag: int) -> Action:
        """Return what is done with a public element at any nesting level.

        Text attributes and opaque binary values are kept only where an allow-list names them; a tag the DICOM
        dictionary does not know is removed.
        """
        group = tag >> 16
        if not tag & 0xFFFF or group in _REMOVED_GROUPS or group & 0xFF00 in _MASKED_GROUPS:
            return Action.REMOVE
        listed = self._actions.get(tag)
        vr = _dictionary_vr(tag)
        if listed is not None:
            return _sequence_action(listed) if vr == "SQ" else listed
        return self._by_vr(tag, vr)

    def _by_vr(self, tag: int, vr: str) -> Action:
        if not vr or tag >> 16 == 0x7FE0:
            return Action.REMOVE
        if vr == "SQ":
            return Action.RECURSE
        if vr == "UI":
            return Action.MAP_UID
        if vr in _DATE_VRS:
            return Action.SHIFT_DATE if self.modified_dates else Action.EMPTY
        if vr in _TEXT_VRS:
            return Action.KEEP if tag in KEPT_TEXT else Action.REMOVE
        if vr in _BINARY_VRS and tag >> 16 != 0x0028:
            return Action.REMOVE
        return Action.KEEP

    def private_vr(self, creator: str, group: int, number: int) -> str:
        """Return the VR of a private element that may stay (PS3.15 E.3.10), "" where it must go."""
        return SAFE_PRIVATE.get((creator, group, number), "") if self.retain_safe_private else ""

    def kept_characteristic(self, tag: int, sop_class_uid: str) -> bool:
        """True for the two values an SUV needs, in a PET object."""
        return (
            self.retain_suv_inputs
            and tag in PATIENT_CHARACTERISTICS
            and "PET" in self.accepted_sop_classes.get(sop_class_uid, "")
        )

    def method_codes(self, sop_class_uid: str) -> tuple[tuple[str, str], ...]:
        """Return the codes of CID 7050 for (0012,0064): the profile and the options that were applied."""
        codes = [("113100", "Basic Application Confidentiality Profile")]
        if self.clean_descriptors:
            codes.append(("113105", "Clean Descriptors Option"))
        if self.modified_dates:
            codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
        if self.retain_suv_inputs and "PET" in self.accepted_sop_classes.get(sop_class_uid, ""):
            codes.append(("113108", "Retain Patient Characteristics Option"))
        if self.retain_device_identity:
            codes.append(("113109", "Retain Device Identity Option"))
        if self.retain_safe_private:
            codes.append(("113111", "Retain Safe Private Option"))
        return tuple(codes)


def _sequence_action(listed: Action) -> Action:
    """A sequence cannot be a dummy or a UID: its items are de-identified in place of a replacement."""
    return Action.RECURSE if listed in (Action.MAP_UID, Action.KEEP, Action.RECURSE) else Action.REMOVE


def _dictionary_vr(tag: int) -> str:
    entry = DicomDictionary.get(tag)
    return entry[0].split(" or ")[0] if entry else ""


def basic_profile_table(module: str = TABLE_MODULE) -> dict[int, str]:
    """Return the Basic Profile's action code per tag, from the table that `dicom-anonymizer` ships.

    Masked tags (curves, overlays) are left out: `Profile.action` removes their groups whole.
    """
    source = importlib.import_module(module)
    return {
        tag[0] << 16 | tag[1]: code
        for name, code in _CATEGORIES.items()
        for tag in getattr(source, name)
        if len(tag) == 2
    }


DEFAULT_PROFILE = Profile()
