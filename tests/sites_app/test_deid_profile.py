"""The profile against DICOM PS3.15 table E.1-1, and the values it puts in place of others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from pydicom.datadict import tag_for_keyword

from sites_app.deid.profile import DEFAULT_PROFILE, Action, Profile, basic_profile_table
from sites_app.deid.values import clean_descriptor, keyed_digest, shift_dates

STRICT = Profile(
    retain_device_identity=False, retain_safe_private=False, modified_dates=False, clean_descriptors=False
)
ALLOWED = {
    "X": {Action.REMOVE},
    "Z": {Action.EMPTY, Action.REMOVE, Action.SUBJECT},
    "D": {Action.DUMMY, Action.REMOVE, Action.EMPTY, Action.MAP_UID},
    "U": {Action.MAP_UID, Action.RECURSE},
    "Z/D": {Action.EMPTY, Action.DUMMY, Action.REMOVE, Action.SUBJECT},
    "X/Z": {Action.EMPTY, Action.REMOVE},
    "X/D": {Action.REMOVE, Action.DUMMY},
    "X/Z/D": {Action.EMPTY, Action.REMOVE, Action.DUMMY},
    "X/Z/U*": {Action.RECURSE, Action.REMOVE, Action.MAP_UID},
}


def tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None
    return int(found)


@pytest.mark.reference
def test_without_options_every_row_of_the_standard_is_obeyed(reference_data: Path) -> None:
    rows = json.loads((reference_data / "dicom" / "ps3.15_table_e1-1.json").read_text())
    wrong = []
    checked = 0
    for row in rows:
        try:
            number = int(row["tag"][1:5] + row["tag"][6:10], 16)
        except ValueError:
            continue
        checked += 1
        if STRICT.action(number) not in ALLOWED[row["basicProfile"]]:
            wrong.append((row["name"], row["tag"], row["basicProfile"], STRICT.action(number).name))

    assert checked > 600
    assert wrong == []


@pytest.mark.reference
def test_the_shipped_table_names_every_row_of_the_standard(reference_data: Path) -> None:
    rows = json.loads((reference_data / "dicom" / "ps3.15_table_e1-1.json").read_text())
    table = basic_profile_table()
    missing = []
    for row in rows:
        try:
            number = int(row["tag"][1:5] + row["tag"][6:10], 16)
        except ValueError:
            continue
        if number not in table:
            missing.append(row["name"])

    assert missing == []


@pytest.mark.reference
def test_device_identity_keeps_only_what_the_option_may_keep(reference_data: Path) -> None:
    rows = json.loads((reference_data / "dicom" / "ps3.15_table_e1-1.json").read_text())
    optional = {row["id"] for row in rows if row.get("rtnDevIdOpt") == "K"}
    without = Profile(retain_device_identity=False)
    changed = {
        row["id"]
        for row in rows
        if row["id"].isalnum()
        and "x" not in row["id"]
        and len(row["id"]) == 8
        and _action(DEFAULT_PROFILE, row["id"]) != _action(without, row["id"])
    }

    assert changed
    assert changed <= optional


def _action(profile: Profile, number: str) -> Action:
    try:
        return profile.action(int(number, 16))
    except ValueError:
        return Action.REMOVE


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientName", Action.SUBJECT),
        ("PatientID", Action.SUBJECT),
        ("PatientBirthDate", Action.EMPTY),
        ("PatientSex", Action.EMPTY),
        ("StudyDate", Action.SHIFT_DATE),
        ("StudyTime", Action.SHIFT_DATE),
        ("AcquisitionDateTime", Action.SHIFT_DATE),
        ("StudyInstanceUID", Action.MAP_UID),
        ("SOPClassUID", Action.KEEP),
        ("RepetitionTime", Action.KEEP),
        ("SeriesDescription", Action.CLEAN),
        ("ImageComments", Action.REMOVE),
        ("InstitutionName", Action.EMPTY),
        ("DeviceSerialNumber", Action.KEEP),
        ("Manufacturer", Action.KEEP),
        ("PerFrameFunctionalGroupsSequence", Action.RECURSE),
        ("SharedFunctionalGroupsSequence", Action.RECURSE),
        ("RadiopharmaceuticalInformationSequence", Action.RECURSE),
        ("OtherPatientIDsSequence", Action.REMOVE),
        ("IconImageSequence", Action.REMOVE),
        ("ContentSequence", Action.REMOVE),
        ("ClinicalTrialSponsorName", Action.REMOVE),
        ("EncapsulatedDocument", Action.DUMMY),
        ("TimezoneOffsetFromUTC", Action.KEEP),
    ],
)
def test_actions_of_the_default_profile(keyword: str, action: Action) -> None:
    assert DEFAULT_PROFILE.action(tag(keyword)) is action


@pytest.mark.parametrize("number", [0x50001010, 0x60003000, 0x60224000, 0xFFFCFFFC, 0x00080000, 0x00087777])
def test_masked_padding_and_unknown_tags_are_removed(number: int) -> None:
    assert DEFAULT_PROFILE.action(number) is Action.REMOVE


def test_text_is_kept_only_where_a_list_names_it() -> None:
    assert DEFAULT_PROFILE.action(tag("ReceiveCoilName")) is Action.KEEP
    assert DEFAULT_PROFILE.action(tag("PatientInsurancePlanCodeSequence")) in (Action.REMOVE, Action.RECURSE)
    assert DEFAULT_PROFILE.action(tag("NameOfPhysiciansReadingStudy")) is Action.REMOVE
    assert DEFAULT_PROFILE.action(tag("PixelDataProviderURL")) is Action.REMOVE


def test_the_digest_names_the_profile_and_changes_with_it() -> None:
    assert DEFAULT_PROFILE.digest == Profile().digest
    assert json.loads(json.dumps(DEFAULT_PROFILE.to_json())) == DEFAULT_PROFILE.to_json()
    changed = {
        dataclasses.replace(DEFAULT_PROFILE, **change).digest
        for change in (
            {"version": "1.0.1"},
            {"retain_device_identity": False},
            {"modified_dates": False},
            {"accepted_sop_classes": {}},
        )
    }
    assert len(changed | {DEFAULT_PROFILE.digest}) == 5


@pytest.mark.parametrize(
    ("vr", "value", "days", "shifted"),
    [
        ("DA", b"20240229", 1, b"20240301"),
        ("DA", b"20240301 ", -1, b"20240229"),
        ("DA", b"2024.02.29", 365, b"20250228"),
        ("DA", b"20240101\\20240201", -1, b"20231231\\20240131"),
        ("DA", b"", -1, b""),
        ("DA", b"20240230", 1, None),
        ("DA", b"00010101", -1, None),
        ("DA", b"Doe John", 1, None),
        ("TM", b"235959.123456", -1, b"235959.123456"),
        ("TM", b"Doe", -1, None),
        ("DT", b"20240229235959.123456+0530", 1, b"20240301235959.123456+0530"),
        ("DT", b"202402", -1, b"202401"),
        ("DT", b"2024", 400, b"2025"),
        ("DT", b"20241301", 1, None),
        ("DT", b"2024 Doe", 1, None),
    ],
)
def test_dates_are_moved_by_whole_days(vr: str, value: bytes, days: int, shifted: bytes | None) -> None:
    assert shift_dates(vr, value, days) == shifted


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("t1_mprage_sag_p2_iso", "t1_mprage_sag_p2_iso"),
        ("ADNI_Sag3D MPRAGE", "ADNI_Sag3D MPRAGE"),
        ("5/5mm Plain", "5/5mm Plain"),
        ("ep2d_diff_b1000 TR 8000", "ep2d_diff_b1000 TR 8000"),
        ("Brain^DOE", ""),
        ("t1 2024-01-31", "t1"),
        ("t1 31.01.2024 t2", "t1 t2"),
        ("t1 20240131", "t1"),
        ("scan 1234567 x", "scan x"),
        ("mail a.b@c.org now", "mail now"),
        ("call 555-123-4567", "call"),
        ("Dr. Smith brain", "brain"),
        ("jane DOE t1 jane", "t1"),
        ("t1_DOE_1", "t1_ _1"),
        ("Adoeb", "Adoeb"),
    ],
)
def test_descriptors_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_descriptor(text, {"Doe", "Jane"}) == cleaned


def test_identifiers_compare_without_case_and_spaces() -> None:
    assert keyed_digest(b"k", "p", " A  b ") == keyed_digest(b"k", "p", "a B")
    assert keyed_digest(b"k", "p", "ab", "c") != keyed_digest(b"k", "p", "a", "bc")
