"""The de-identifier: nothing of the patient survives, what the trial needs does, and bad files are named."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from dicom_files import (
    CT_IMAGE,
    KEY,
    PET_IMAGE,
    enhanced_dataset,
    item,
    mr_dataset,
    mr_file,
    part10,
)
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from sites_app.deid.engine import DeidentifiedInstance, Deidentifier, InstanceRefused
from sites_app.deid.profile import DEFAULT_PROFILE, Profile

MARK = "PHIMARKER"
ORIGINALS = (
    b"Featherstone", b"Wilhelmina", b"7788991", b"19560712", b"Elsewhere", b"Strange", b"Wong", b"ACC0099123",
    b"12345678", b"1.3.12.2.1107", b"20240131", b"20240201", b"067Y",
)  # fmt: skip


def deidentifier(profile: Profile = DEFAULT_PROFILE, key: bytes = KEY, days: int = -100) -> Deidentifier:
    return Deidentifier(profile, key, "S-0042", days, "TRIAL-1")


def read(instance: DeidentifiedInstance) -> Dataset:
    return pydicom.dcmread(io.BytesIO(instance.data))


def refusal(data: bytes) -> InstanceRefused:
    with pytest.raises(InstanceRefused) as refused:
        deidentifier().process(data)
    error = refused.value
    assert error.code and error.detail and error.action
    return error


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_no_original_value_survives_in_any_encoding(syntax: str) -> None:
    instance = deidentifier().process(mr_file(transfer_syntax=syntax))
    written = instance.data
    if syntax == DeflatedExplicitVRLittleEndian:
        start = written.index(b"HUB_DEID_1") + 10
        written = written[:start] + zlib.decompress(written[start:], -15)

    assert [value for value in ORIGINALS if value in written] == []
    assert instance.data[:132] == bytes(128) + b"DICM"
    assert read(instance).file_meta.TransferSyntaxUID == syntax
    assert read(instance).PixelData == mr_dataset().PixelData


def test_what_was_done_is_written_into_the_file() -> None:
    dataset = read(deidentifier().process(mr_file()))

    assert dataset.PatientName == "S-0042"
    assert dataset.PatientID == "S-0042"
    assert dataset.PatientBirthDate == ""
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.DeidentificationMethod == f"hub-basic 1.0.0 {DEFAULT_PROFILE.digest[:16]}"
    assert [code.CodeValue for code in dataset.DeidentificationMethodCodeSequence] == [
        "113100", "113105", "113107", "113109", "113111",
    ]  # fmt: skip
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert dataset.ClinicalTrialProtocolID == "TRIAL-1"
    assert dataset.ClinicalTrialSubjectID == "S-0042"


def test_acquisition_parameters_and_device_stay_byte_for_byte() -> None:
    original, dataset = mr_dataset(), read(deidentifier().process(mr_file()))

    for keyword in (
        "RepetitionTime EchoTime FlipAngle InversionTime MagneticFieldStrength Manufacturer StationName"
        " ManufacturerModelName DeviceSerialNumber SoftwareVersions ImagePositionPatient PixelSpacing"
        " SeriesDescription ProtocolName ImageType PixelData InPlanePhaseEncodingDirection"
    ).split():
        assert dataset[keyword].value == original[keyword].value, keyword


def test_parameters_are_read_in_their_units_with_their_source() -> None:
    facts = deidentifier().process(mr_file(3)).facts

    assert facts.parameters["RepetitionTime"] == 2300.0
    assert facts.sources["RepetitionTime"] == "(0018,0080)"
    assert facts.parameters["SoftwareVersions"] == ("syngo MR E11", "N4")
    assert facts.parameters["PixelSpacing"] == (1.0, 1.0)
    assert facts.parameters["AcquisitionDateTime"] == "20231024000100.25+0100"
    assert facts.positions == ((-4.0, -4.0, 6.0),)
    assert (facts.instance_number, facts.rows, facts.columns, facts.frames) == (3, 8, 8, 1)
    assert "PatientWeight" not in facts.parameters
    assert "DiffusionBValue" not in facts.parameters
    assert facts.unparsable == ()


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "12abc", "--1"])
def test_an_impossible_number_is_unparsable_and_not_missing(value: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = mr_file().replace(b"2.98", value.encode().ljust(4)[:4] if len(value) < 5 else b"1e+9")
    raw = mr_file().replace(
        struct.pack("<HH2sH", 0x18, 0x81, b"DS", 4) + b"2.98", _element(0x18, 0x81, value)
    )

    facts = deidentifier().process(raw).facts

    assert data
    assert facts.unparsable == ("EchoTime",)
    assert "EchoTime" not in facts.parameters


def _element(group: int, number: int, value: str, vr: bytes = b"DS") -> bytes:
    raw = value.encode() + b" " * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(raw)) + raw


def test_dates_move_together_and_intervals_stay() -> None:
    dataset = read(deidentifier(days=-100).process(mr_file(SeriesDate="2024.02.01", ContentDate="20240229")))

    assert dataset.StudyDate == "20231023"
    assert dataset.StudyTime == "235900.5"
    assert dataset.AcquisitionDate == "20231024"
    assert dataset.AcquisitionDateTime == "20231024000100.25+0100"
    assert dataset.SeriesDate == "20231024"
    assert dataset.ContentDate == "20231121"


def test_dates_in_sequences_move_too() -> None:
    source = mr_dataset(Modality="PT", SOPClassUID=PET_IMAGE)
    source.RadiopharmaceuticalInformationSequence = item(
        RadiopharmaceuticalStartDateTime="20240131225900", RadionuclideTotalDose="3.5e8"
    )

    instance = deidentifier().process(part10(source))

    radiopharmaceutical = read(instance).RadiopharmaceuticalInformationSequence[0]
    assert radiopharmaceutical.RadiopharmaceuticalStartDateTime == "20231023225900"
    assert instance.facts.parameters["RadiopharmaceuticalStartDateTime"] == "20231023225900"
    assert instance.facts.parameters["RadionuclideTotalDose"] == 3.5e8
    assert instance.facts.sources["RadionuclideTotalDose"] == "(0054,0016)>(0018,1074)"


def test_a_date_that_cannot_move_is_emptied_and_unparsable() -> None:
    instance = deidentifier().process(mr_file(AcquisitionDate="00010101"))

    assert read(instance).AcquisitionDate == ""
    assert instance.facts.unparsable == ("AcquisitionDate",)
    assert "(0008,0022)" in instance.report.actions["EMPTY"]


def test_weight_and_size_stay_for_pet_only() -> None:
    pet = read(deidentifier().process(mr_file(Modality="PT", SOPClassUID=PET_IMAGE)))
    magnetic = read(deidentifier().process(mr_file()))

    assert (str(pet.PatientWeight), str(pet.PatientSize)) == ("71.5", "1.68")
    assert "113108" in [code.CodeValue for code in pet.DeidentificationMethodCodeSequence]
    assert "PatientWeight" not in magnetic and "PatientSize" not in magnetic
    assert "PatientAge" not in pet


def test_uids_map_the_same_in_every_file_and_process_and_otherwise_under_another_key() -> None:
    first, second = deidentifier().process(mr_file(1)), deidentifier().process(mr_file(2))
    other = deidentifier(key=b"x" * 32).process(mr_file(1))
    program = (
        "from sites_app.deid.values import UidMap;"
        f"print(UidMap({KEY!r})('1.3.12.2.1107.5.2.43.66038.30000.2'))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert first.facts.series_instance_uid == second.facts.series_instance_uid == elsewhere.stdout.strip()
    assert first.facts.series_instance_uid != other.facts.series_instance_uid
    assert first.facts.sop_instance_uid != second.facts.sop_instance_uid
    assert (
        read(first).SOPInstanceUID
        == read(first).file_meta.MediaStorageSOPInstanceUID
        == first.facts.sop_instance_uid
    )
    assert first.facts.sop_instance_uid.startswith("2.25.")


def test_references_follow_the_uid_map() -> None:
    source = mr_dataset()
    source.ReferencedImageSequence = item(
        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        ReferencedSOPInstanceUID="1.3.12.2.1107.5.2.43.66038.9",
    )

    reference = read(deidentifier().process(part10(source))).ReferencedImageSequence[0]

    assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
    assert reference.ReferencedSOPInstanceUID == deidentifier().map_uid("1.3.12.2.1107.5.2.43.66038.9")


def _planted() -> Dataset:
    dataset = mr_dataset()
    dataset.ImageComments = dataset.PatientComments = dataset.AdditionalPatientHistory = MARK
    dataset.InstitutionAddress = dataset.OtherPatientIDs = dataset.PatientTelephoneNumbers = MARK
    dataset.OtherPatientIDsSequence = item(PatientID=MARK)
    dataset.RequestAttributesSequence = item(RequestedProcedureDescription=MARK)
    dataset.ReferencedStudySequence = item(ReferencedSOPInstanceUID="1.2.3.4", PatientName=MARK)
    dataset.RadiopharmaceuticalInformationSequence = item(PatientComments=MARK, OperatorsName=MARK)
    dataset.IconImageSequence = item(PixelData=MARK.encode() + b"!", BitsAllocated=8)
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000022, "LO", MARK)
    dataset.add_new(0x60003000, "OW", MARK.encode() + b"!")
    dataset.add_new(0x50000030, "SH", MARK)
    dataset.add_new(0x00091010, "LO", MARK)
    dataset.add_new(0x00090010, "LO", "ACME " + MARK)
    dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    dataset.add_new(0x0019100B, "DS", "1.5")
    dataset.add_new(0x00191015, "LO", MARK)
    dataset.add_new(0x0019100C, "UN", MARK.encode() + b"!")
    dataset.add_new(0x00291010, "OB", MARK.encode() + b"!")
    dataset.add_new(0x0029_1140, "SQ", item(PatientName=MARK))
    dataset.add_new(0x00080005 + 0x7770, "UN", MARK.encode() + b"!")
    dataset.add_new(0xFFFCFFFC, "OB", MARK.encode() + b"!")
    dataset.DigitalSignaturesSequence = item(CertificateOfSigner=MARK.encode() + b"!")
    dataset.PersonIdentificationCodeSequence = item(CodeMeaning=MARK)
    dataset.TextComments = dataset.InterpretationText = MARK
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_what_is_planted_where_profiles_forget_does_not_survive(syntax: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = part10(_planted(), syntax, preamble=MARK.encode().ljust(128, b"!")) + MARK.encode() * 10

    instance = deidentifier().process(data)

    assert MARK.encode() not in instance.data
    assert b"1.2.3.4" not in instance.data
    assert instance.data.endswith(mr_dataset().PixelData)
    if syntax != ImplicitVRLittleEndian:
        assert str(read(instance)[0x0019100B].value) == "1.5"
        assert read(instance)[0x00190010].value == "SIEMENS MR HEADER"
        assert 0x00090010 not in read(instance)


def test_identifiers_are_cleaned_out_of_descriptors() -> None:
    instance = deidentifier().process(
        mr_file(
            SeriesDescription="FEATHERSTONE t1 MRN-7788991 12.07.1956",
            StudyDescription="Brain 0099123456 Dr Wong",
            ProtocolName="t1_mprage Wilhelmina",
        )
    )

    dataset = read(instance)
    assert dataset.SeriesDescription == "t1" == instance.facts.parameters["SeriesDescription"]
    assert dataset.StudyDescription == "Brain"
    assert dataset.ProtocolName == "t1_mprage" == instance.facts.parameters["ProtocolName"]


@pytest.mark.parametrize(
    "keyword", ["BodyPartExamined", "SequenceName", "SoftwareVersions", "ReceiveCoilName"]
)
def test_an_identifier_in_a_kept_attribute_refuses_the_file(keyword: str) -> None:
    error = refusal(mr_file(**{keyword: "FEATHERSTONE"}))

    assert error.code == "residual_identifier"
    assert "eatherstone" not in error.detail.lower()


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("Featherstone^W", "xFEATHERSTONEx"),
        ("Müller^Jörg", "MÜLLER"),
        ("Lindqvist^Bo", "b0 lindqvist"),
        ("Doe^Jane", "t1_JANE_x"),
    ],
)
def test_a_name_is_found_in_any_case_and_in_longer_words(name: str, planted: str) -> None:
    error = refusal(mr_file(PatientName=name, ReceiveCoilName=planted))

    assert error.code == "residual_identifier"


@pytest.mark.parametrize(
    ("patient_id", "planted"),
    [("1234", "1234"), ("900900", "2.900900"), ("Prisma", "Prisma"), ("ANON", "ANON")],
)
def test_what_any_header_holds_by_chance_does_not_refuse(patient_id: str, planted: str) -> None:
    assert deidentifier().process(mr_file(PatientID=patient_id, ReceiveCoilName=planted)).facts.rows == 8


def test_thousands_of_names_or_uids_do_not_take_minutes() -> None:
    named, referring = mr_dataset(), mr_dataset()
    named.ReferencedImageSequence = [item(PatientName=f"N{number:06}")[0] for number in range(20_000)]
    referring.ReferencedImageSequence = [
        item(ReferencedSOPInstanceUID=f"1.2.3.{number}000")[0] for number in range(20_000)
    ]
    began = time.process_time()

    assert refusal(part10(named)).code == "too_many_names"
    instance = deidentifier().process(part10(referring))
    spent = time.process_time() - began

    assert len(read(instance).ReferencedImageSequence) == 20_000
    assert b"1.2.3." not in instance.data
    assert spent < 15


def test_an_original_uid_among_thousands_is_found() -> None:
    source = mr_dataset(SequenceName="1.2.3.77000")
    source.ReferencedImageSequence = [
        item(ReferencedSOPInstanceUID=f"1.2.3.{number}000")[0] for number in range(100)
    ]

    assert refusal(part10(source)).code == "residual_identifier"


def test_a_long_submission_keeps_its_memory_bounded() -> None:
    engine = deidentifier()
    for number in range(300):
        engine.process(mr_file(number + 1, FilterType=f"{number}", ImagedNucleus=f"{number}H"))

    assert engine._writer._memo_bytes < 2**25


def test_a_uid_in_a_kept_attribute_refuses_the_file() -> None:
    assert refusal(mr_file(SequenceName="1.3.12.2.1107.5.2.43.66038.30000.1")).code == "residual_identifier"


@pytest.mark.parametrize(
    ("option", "kept", "keyword"),
    [
        ("retain_device_identity", True, "DeviceSerialNumber"),
        ("retain_device_identity", False, "DeviceSerialNumber"),
        ("clean_descriptors", True, "SeriesDescription"),
        ("clean_descriptors", False, "SeriesDescription"),
        ("modified_dates", True, "AcquisitionDate"),
        ("modified_dates", False, "AcquisitionDate"),
    ],
)
def test_each_option_can_be_switched_off(option: str, kept: bool, keyword: str) -> None:
    dataset = read(deidentifier(Profile(**{option: kept})).process(mr_file()))

    assert bool(dataset.get(keyword)) is kept


def test_safe_private_elements_need_their_creator_and_the_option() -> None:
    source = mr_dataset()
    source.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    source.add_new(0x0019100C, "IS", "1000")
    source.add_new(0x00191028, "FD", 18.832)
    foreign = mr_dataset()
    foreign.add_new(0x00190010, "LO", "ACME")
    foreign.add_new(0x0019100C, "IS", "1000")

    kept = deidentifier().process(part10(source))

    assert read(kept)[0x0019100C].value == 1000
    assert kept.facts.parameters["DiffusionBValue"] == 1000.0
    assert kept.facts.sources["DiffusionBValue"] == "(0019,xx0C) SIEMENS MR HEADER"
    assert not [
        element for element in read(deidentifier().process(part10(foreign))) if element.tag.is_private
    ]
    switched = read(deidentifier(Profile(retain_safe_private=False)).process(part10(source)))
    assert not [element for element in switched if element.tag.is_private]


@pytest.mark.parametrize(("syntax", "frame"), [(JPEG2000Lossless, b"\xff\x4fabc"), (RLELossless, b"\0" * 66)])
def test_compressed_pixel_data_pass_through_untouched(syntax: str, frame: bytes) -> None:
    source = mr_dataset()
    source.PixelData = encapsulate([frame])
    source["PixelData"].VR = "OB"
    source["PixelData"].is_undefined_length = True

    written = read(deidentifier().process(part10(source, syntax) + b"appended"))

    assert written.PixelData == source.PixelData
    assert written.file_meta.TransferSyntaxUID == syntax


def test_enhanced_multi_frame_values_come_from_functional_groups() -> None:
    instance = deidentifier().process(part10(enhanced_dataset(echoes=(2.4, 4.8), positions=3)))
    facts = instance.facts

    assert facts.frames == 6
    assert facts.parameters["RepetitionTime"] == 1800.0
    assert facts.sources["RepetitionTime"] == "(5200,9229)>(0018,9112)>(0018,0080)"
    assert facts.varying["EchoTime"] == ((2.4, 3), (4.8, 3))
    assert "EchoTime" not in facts.parameters
    assert [position[2] for position in facts.positions] == [0.0, 5.0, 10.0, 0.0, 5.0, 10.0]
    frame = read(instance).PerFrameFunctionalGroupsSequence[4]
    assert frame.FrameContentSequence[0].FrameAcquisitionDateTime == "20231023101112.5"
    assert frame.MREchoSequence[0].EffectiveEchoTime == 4.8


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "burned_in_risk"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "burned_in_risk"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "sop_class_not_accepted"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22"}, "sop_class_not_accepted"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "sop_class_not_accepted"),
        ({"BurnedInAnnotation": "YES"}, "burned_in_risk"),
        ({"BurnedInAnnotation": "MAYBE"}, "burned_in_risk"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "burned_in_risk"),
        ({"PhotometricInterpretation": "RGB"}, "burned_in_risk"),
        ({"StudyInstanceUID": None}, "uid_missing"),
        ({"SeriesInstanceUID": None}, "uid_missing"),
        ({"PixelData": None}, "pixel_data_missing"),
        ({"PixelData": bytes(100)}, "pixel_data_truncated"),
        ({"PixelData": bytes(200)}, "pixel_data_excess"),
        ({"Rows": None}, "image_description_invalid"),
        ({"Rows": 65535, "Columns": 65535}, "image_too_large"),
    ],
)
def test_what_may_not_enter_is_named(changes: dict[str, object], code: str) -> None:
    assert refusal(mr_file(**changes)).code == code


def test_a_file_without_sop_instance_uid_is_refused() -> None:
    good = _element(0x08, 0x18, "1.3.12.2.1107.5.2.43.66038.1", b"UI")

    assert refusal(mr_file().replace(good, _element(0x08, 0x18, "", b"UI"))).code == "uid_missing"


@pytest.mark.parametrize("uid", [b"1.2/../../x", b"<script>...", b"1.2\x00.3.4.5.", b"1.2\r\n.3.4.."])
def test_a_uid_that_is_no_uid_is_refused(uid: bytes) -> None:
    good = b"1.3.12.2.1107.5.2.43.66038.1"
    assert refusal(mr_file().replace(good, uid.ljust(len(good), b"x"))).code == "uid_invalid"


def test_a_file_without_preamble_or_meta_information_is_read() -> None:
    whole = mr_file(transfer_syntax=ImplicitVRLittleEndian)
    dataset = whole[whole.index(b"\x08\x00\x05\x00") :]

    for data in (whole[128:], whole[132:], dataset):
        instance = deidentifier().process(data)
        assert instance.data == deidentifier().process(whole).data


def test_the_patient_digest_tells_patients_apart_and_needs_the_key() -> None:
    same = deidentifier().process(mr_file(1)).patient_digest
    case = deidentifier().process(mr_file(2, PatientID=" mrn-7788991")).patient_digest
    other = deidentifier().process(mr_file(3, PatientID="MRN-7788992")).patient_digest
    keyed = deidentifier(key=b"y" * 32).process(mr_file(1)).patient_digest
    named = deidentifier().process(mr_file(1, PatientID="")).patient_digest
    nobody = deidentifier().process(mr_file(1, PatientID="ANONYMIZED", PatientName="")).patient_digest

    assert same == case
    assert len({same, other, keyed, named}) == 4
    assert nobody == ""


def test_a_claimed_subject_code_is_recognised() -> None:
    claimed = deidentifier().process(mr_file(PatientID="s-0042"))

    assert claimed.claimed_patient_id_matches("S-0042")
    assert not claimed.claimed_patient_id_matches("S-0043")
    assert not deidentifier().process(mr_file(PatientID="")).claimed_patient_id_matches("")


def test_the_report_names_what_was_done() -> None:
    report = deidentifier().process(mr_file()).report

    assert report.profile_digest == DEFAULT_PROFILE.digest
    assert "(0010,0010)" in report.actions["SUBJECT"]
    assert "(0020,000D)" in report.actions["MAP_UID"]
    assert "(0008,0020)" in report.actions["SHIFT_DATE"]
    assert "(0008,0080)" in report.actions["EMPTY"]
    assert report.counts["CLEAN"] == 3


def test_the_memo_of_one_series_does_not_leak_into_another() -> None:
    engine = deidentifier()
    engine.process(mr_file(1, SeriesDescription="plain"))

    described = engine.process(mr_file(2, PatientName="Plain^Jane", SeriesDescription="plain t1"))

    assert described.facts.parameters["SeriesDescription"] == "t1"
    assert (
        described.data
        == deidentifier().process(mr_file(2, PatientName="Plain^Jane", SeriesDescription="plain t1")).data
    )


def test_processing_is_deterministic_and_does_not_depend_on_order() -> None:
    files = [mr_file(number) for number in range(1, 6)]
    one, other = deidentifier(), deidentifier()

    forwards = [one.process(data).data for data in files]
    backwards = [other.process(data).data for data in reversed(files)]

    assert forwards == backwards[::-1]


@pytest.mark.parametrize(
    ("key", "code", "trial"),
    [(b"short", "S", "T"), (KEY, "", "T"), (KEY, "S\\1", "T"), (KEY, "Ü", "T"), (KEY, "S", "")],
)
def test_a_deidentifier_refuses_bad_settings(key: bytes, code: str, trial: str) -> None:
    with pytest.raises(ValueError):
        Deidentifier(DEFAULT_PROFILE, key, code, 1, trial)


def test_a_ct_is_accepted(tmp_path: Path) -> None:
    facts = (
        deidentifier().process(mr_file(Modality="CT", SOPClassUID=CT_IMAGE, KVP="120", Exposure="85")).facts
    )

    assert facts.parameters["KVP"] == 120.0
    assert facts.parameters["Exposure"] == 85.0
    assert "EchoTime" not in facts.parameters
