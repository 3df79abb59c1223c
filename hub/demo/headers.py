"""Headers of simulated series: patient and study, equipment, MR, enhanced MR, CT and PET modules of PS3.3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from hub.demo.encoding import Key, make_uid
from hub.demo.identifiers import Identity

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The image matrix and where its slices lie (mm), axial, from below to above."""

    slices: int
    rows: int
    columns: int
    spacing_mm: float
    thickness_mm: float
    pitch_mm: float

    def position(self, index: int) -> tuple[float, float, float]:
        """Return ImagePositionPatient of a slice, rounded as scanners write it."""
        x = -self.spacing_mm * (self.columns - 1) / 2
        y = -self.spacing_mm * (self.rows - 1) / 2
        z = self.pitch_mm * (index - (self.slices - 1) / 2)
        return round(x, 4), round(y, 4), round(z, 4)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What identifies the scanner and its state."""

    manufacturer: str
    model: str
    serial: str
    software_version: str
    coil: str = ""
    field_strength_t: float | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One acquisition: whose, when, in which study and series."""

    identity: Identity
    taken: datetime
    study: str
    series: str
    number: int = 1
    weight_kg: float = 72.0

    @property
    def study_uid(self) -> str:
        return make_uid("study", self.study)

    @property
    def series_uid(self) -> str:
        return make_uid("series", self.study, self.series)

    def instance_uid(self, number: int) -> str:
        return make_uid("instance", self.study, self.series, number)


def date_text(day: date) -> str:
    return f"{day:%Y%m%d}"


def time_text(time: datetime) -> str:
    return f"{time:%H%M%S}.{time.microsecond:06d}"


def common_header(
    acquisition: Acquisition, equipment: Equipment, modality: str, sop_class: str
) -> dict[Key, Any]:
    """Return patient, study, series and equipment modules, with the planted identifiers."""
    identity, taken = acquisition.identity, acquisition.taken
    age = (taken.date() - identity.birth_date).days // 365
    header: dict[Key, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "InstanceCreationDate": date_text(taken),
        "InstanceCreationTime": time_text(taken),
        "SOPClassUID": sop_class,
        "StudyDate": date_text(taken),
        "SeriesDate": date_text(taken),
        "AcquisitionDate": date_text(taken),
        "ContentDate": date_text(taken),
        "StudyTime": time_text(taken - timedelta(minutes=5)),
        "SeriesTime": time_text(taken),
        "AcquisitionTime": time_text(taken),
        "ContentTime": time_text(taken),
        "AccessionNumber": identity.accession_number,
        "Modality": modality,
        "Manufacturer": equipment.manufacturer,
        "InstitutionName": identity.institution,
        "InstitutionAddress": identity.address,
        "ReferringPhysicianName": identity.referring_physician,
        "StationName": identity.station,
        "StudyDescription": "TRIAL HEAD",
        "InstitutionalDepartmentName": "RADIOLOGY",
        "PerformingPhysicianName": identity.referring_physician,
        "OperatorsName": identity.operator,
        "ManufacturerModelName": equipment.model,
        "PatientName": identity.patient_name,
        "PatientID": identity.patient_id,
        "PatientBirthDate": date_text(identity.birth_date),
        "PatientSex": identity.sex,
        "PatientAge": f"{age:03d}Y",
        "PatientWeight": acquisition.weight_kg,
        "PatientAddress": identity.address,
        "PatientTelephoneNumbers": identity.telephone,
        "BodyPartExamined": "HEAD",
        "DeviceSerialNumber": equipment.serial,
        "SoftwareVersions": equipment.software_version,
        "PatientPosition": "HFS",
        "StudyInstanceUID": acquisition.study_uid,
        "SeriesInstanceUID": acquisition.series_uid,
        "StudyID": "1",
        "SeriesNumber": acquisition.number,
        "AcquisitionNumber": 1,
        "FrameOfReferenceUID": make_uid("frame", acquisition.study),
        "PositionReferenceIndicator": "",
        "PerformedProcedureStepStartDate": date_text(taken),
        "PerformedProcedureStepStartTime": time_text(taken),
        "PerformedProcedureStepID": "1",
        "RequestAttributesSequence": [
            {"RequestedProcedureDescription": "TRIAL", "ScheduledProcedureStepID": identity.accession_number}
        ],
        (0x00090010, "LO"): "HUB DEMONSTRATION",
        (0x00091001, "UT"): f"{identity.patient_name} {identity.operator}",
    }
    return header


def pixel_module(grid: Grid, signed: bool = False, bits_stored: int = 12) -> dict[Key, Any]:
    """Return the image pixel module (PS3.3 C.7.6.3) for 16-bit grey values."""
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": grid.rows,
        "Columns": grid.columns,
        "BitsAllocated": 16,
        "BitsStored": bits_stored,
        "HighBit": bits_stored - 1,
        "PixelRepresentation": int(signed),
    }


def plane(grid: Grid, index: int) -> dict[Key, Any]:
    """Return what places one classic slice in space."""
    position = grid.position(index)
    return {"ImagePositionPatient": list(position), "SliceLocation": position[2]}


def geometry(grid: Grid) -> dict[Key, Any]:
    """Return the image plane attributes that all slices share."""
    return {
        "SliceThickness": grid.thickness_mm,
        "SpacingBetweenSlices": grid.pitch_mm,
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [grid.spacing_mm, grid.spacing_mm],
    }


def classic_mr(equipment: Equipment, parameters: Mapping[str, Any], grid: Grid) -> dict[Key, Any]:
    """Return the MR Image module (PS3.3 C.8.3.1); parameters whose value is None are left out."""
    frequency = 42.577 * (equipment.field_strength_t or 0)
    header: dict[Key, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ProtocolName": parameters.get("SeriesDescription"),
        "ScanOptions": "PFP",
        "AngioFlag": "N",
        "NumberOfAverages": 1,
        "ImagingFrequency": round(frequency, 4),
        "ImagedNucleus": "1H",
        "EchoNumbers": 1,
        "MagneticFieldStrength": equipment.field_strength_t,
        "NumberOfPhaseEncodingSteps": grid.rows,
        "PercentSampling": 100,
        "PercentPhaseFieldOfView": 100,
        "ReceiveCoilName": equipment.coil,
        "TransmitCoilName": "Body",
        "AcquisitionMatrix": [grid.rows, 0, 0, grid.columns],
        "VariableFlipAngleFlag": "N",
        "SAR": 0.08,
        "dBdt": 0,
        **geometry(grid),
        **parameters,
    }
    return {key: value for key, value in header.items() if value is not None}


def ct_module(parameters: Mapping[str, Any], grid: Grid) -> dict[Key, Any]:
    """Return the CT Image module (PS3.3 C.8.2.1) with values stored as HU + 1024."""
    header: dict[Key, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ScanOptions": "AXIAL MODE",
        "ReconstructionDiameter": grid.spacing_mm * grid.columns,
        "DistanceSourceToDetector": 949.0,
        "DistanceSourceToPatient": 541.0,
        "GantryDetectorTilt": 0.0,
        "TableHeight": 150.0,
        "RotationDirection": "CW",
        "ProtocolName": parameters.get("SeriesDescription"),
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "WindowCenter": 40,
        "WindowWidth": 90,
        **geometry(grid),
        **parameters,
    }
    return {key: value for key, value in header.items() if value is not None}


def pet_module(
    parameters: Mapping[str, Any], grid: Grid, injected: datetime, dose_bq: float
) -> dict[Key, Any]:
    """Return the PET Series, Isotope and Image modules (PS3.3 C.8.9) with Units BQML."""
    isotope = {
        "Radiopharmaceutical": "Fluorodeoxyglucose",
        "RadiopharmaceuticalStartTime": time_text(injected),
        "RadiopharmaceuticalStartDateTime": f"{date_text(injected)}{time_text(injected)}",
        "RadionuclideTotalDose": dose_bq,
        "RadionuclideHalfLife": 6586.2,
        "RadionuclidePositronFraction": 0.967,
        "RadionuclideCodeSequence": [
            {"CodeValue": "C-111A1", "CodingSchemeDesignator": "SRT", "CodeMeaning": "^18^Fluorine"}
        ],
    }
    return {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "SeriesType": ["STATIC", "IMAGE"],
        "NumberOfSlices": grid.slices,
        "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
        "RandomsCorrectionMethod": "DLYD",
        "AttenuationCorrectionMethod": "CT",
        "ScatterCorrectionMethod": "Model-based",
        "DecayCorrection": "START",
        "ReconstructionMethod": "OSEM3D 4i21s",
        "ConvolutionKernel": "XYZ Gauss4.00",
        "CollimatorType": "NONE",
        "FrameReferenceTime": 0.0,
        "ActualFrameDuration": 1_200_000,
        "DecayFactor": 1.0,
        "RescaleIntercept": 0,
        "RadiopharmaceuticalInformationSequence": [isotope],
        **geometry(grid),
        **parameters,
    }
