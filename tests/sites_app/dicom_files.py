"""Small DICOM files for tests, written with pydicom."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
KEY = b"0123456789abcdef0123456789abcdef"


def mr_dataset(number: int = 1, **changes: Any) -> Dataset:
    """Return a classic MR image of 8 x 8 pixels at z = 3 * (number - 1) mm, its patient named in full."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SOPClassUID = MR_IMAGE
    dataset.SOPInstanceUID = f"1.3.12.2.1107.5.2.43.66038.{number}"
    dataset.StudyInstanceUID = "1.3.12.2.1107.5.2.43.66038.30000.1"
    dataset.SeriesInstanceUID = "1.3.12.2.1107.5.2.43.66038.30000.2"
    dataset.FrameOfReferenceUID = "1.3.12.2.1107.5.2.43.66038.30000.3"
    dataset.StudyDate, dataset.StudyTime = "20240131", "235900.5"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20240201", "000100"
    dataset.AcquisitionDateTime = "20240201000100.25+0100"
    dataset.Modality, dataset.Manufacturer, dataset.ManufacturerModelName = "MR", "SIEMENS", "Prisma"
    dataset.InstitutionName, dataset.StationName = "St Elsewhere General", "AWP66038"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "66038", ["syngo MR E11", "N4"]
    dataset.ReferringPhysicianName, dataset.OperatorsName = "Strange^Stephen", "Wong"
    dataset.PatientName, dataset.PatientID = "Featherstone^Wilhelmina", "MRN-7788991"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19560712", "F", "067Y"
    dataset.PatientWeight, dataset.PatientSize = "71.5", "1.68"
    dataset.AccessionNumber, dataset.StudyID = "ACC0099123", "12345678"
    dataset.StudyDescription, dataset.SeriesDescription = "Brain^Protocol", "t1_mprage_sag_p2_iso"
    dataset.ProtocolName = "t1_mprage_sag_p2_iso"
    dataset.ScanningSequence, dataset.SequenceVariant = ["GR", "IR"], ["SK", "SP"]
    dataset.MRAcquisitionType, dataset.MagneticFieldStrength = "3D", "3"
    dataset.RepetitionTime, dataset.EchoTime, dataset.FlipAngle = "2300", "2.98", "9"
    dataset.InversionTime, dataset.SliceThickness = "900", "3"
    dataset.PixelBandwidth, dataset.InPlanePhaseEncodingDirection = "240", "ROW"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = "4", str(number), "1"
    dataset.ImagePositionPatient = ["-4", "-4", str(3 * (number - 1))]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = ["1", "1"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = 8, 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = (np.arange(64, dtype="<u2") + number).tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def enhanced_dataset(echoes: tuple[float, ...] = (2.4,), positions: int = 4) -> Dataset:
    """Return an enhanced MR object with `positions` slices for each echo."""
    dataset = mr_dataset()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    for keyword in ("RepetitionTime", "EchoTime", "FlipAngle", "InversionTime"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = ENHANCED_MR
    dataset.NumberOfFrames = len(echoes) * positions
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=["2", "2"], SliceThickness="5")]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])]
    shared.MRTimingAndRelatedParametersSequence = [_item(RepetitionTime="1800", FlipAngle="8")]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(echo, place, index) for index, echo in enumerate(echoes) for place in range(positions)
    ]
    dataset.PixelData = bytes(8 * 8 * 2 * len(echoes) * positions)
    return dataset


def _frame(echo: float, place: int, volume: int) -> Dataset:
    frame = Dataset()
    frame.FrameContentSequence = [
        _item(FrameAcquisitionDateTime="20240131101112.5", TemporalPositionIndex=volume + 1)
    ]
    frame.PlanePositionSequence = [_item(ImagePositionPatient=["0", "0", str(5 * place)])]
    frame.MREchoSequence = [_item(EffectiveEchoTime=echo)]
    return frame


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def item(**values: Any) -> Sequence:
    """Return a sequence of one item."""
    return Sequence([_item(**values)])


def part10(
    dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, preamble: bytes = bytes(128)
) -> bytes:
    """Return a dataset as a Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta = meta
    dataset.preamble = preamble
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def mr_file(number: int = 1, transfer_syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    """Return a classic MR file; a change to None removes the attribute."""
    return part10(mr_dataset(number, **changes), transfer_syntax)


__all__ = ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian"]
