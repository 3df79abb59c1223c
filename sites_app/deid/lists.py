"""The lists behind the default profile: SOP classes, attributes and private elements, each with its source."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword} is not in the DICOM dictionary")
    return tag


def _tags(keywords: str) -> frozenset[int]:
    return frozenset(map(_tag, keywords.split()))


_STORAGE = "1.2.840.10008.5.1.4.1.1."

ACCEPTED_SOP_CLASSES = {
    _STORAGE + "2": "CT Image Storage",
    _STORAGE + "2.1": "Enhanced CT Image Storage",
    _STORAGE + "2.2": "Legacy Converted Enhanced CT Image Storage",
    _STORAGE + "4": "MR Image Storage",
    _STORAGE + "4.1": "Enhanced MR Image Storage",
    _STORAGE + "4.4": "Legacy Converted Enhanced MR Image Storage",
    _STORAGE + "128": "PET Image Storage",
    _STORAGE + "130": "Enhanced PET Image Storage",
    _STORAGE + "128.1": "Legacy Converted Enhanced PET Image Storage",
}
"""Cross-sectional image classes whose pixels carry no text by their definition (PS3.4 B.5)."""

BURNED_IN_RISK_SOP_CLASSES = {
    _STORAGE + "7": "Secondary Capture Image Storage",
    _STORAGE + "7.1": "Multi-frame Single Bit Secondary Capture Image Storage",
    _STORAGE + "7.2": "Multi-frame Grayscale Byte Secondary Capture Image Storage",
    _STORAGE + "7.3": "Multi-frame Grayscale Word Secondary Capture Image Storage",
    _STORAGE + "7.4": "Multi-frame True Color Secondary Capture Image Storage",
    _STORAGE + "6": "Ultrasound Image Storage (retired)",
    _STORAGE + "6.1": "Ultrasound Image Storage",
    _STORAGE + "6.2": "Enhanced US Volume Storage",
    _STORAGE + "3": "Ultrasound Multi-frame Image Storage (retired)",
    _STORAGE + "3.1": "Ultrasound Multi-frame Image Storage",
    _STORAGE + "1": "Computed Radiography Image Storage",
    _STORAGE + "1.1": "Digital X-Ray Image Storage",
    _STORAGE + "1.1.1": "Digital X-Ray Image Storage - For Processing",
    _STORAGE + "1.2": "Digital Mammography X-Ray Image Storage",
    _STORAGE + "1.2.1": "Digital Mammography X-Ray Image Storage - For Processing",
    _STORAGE + "12.1": "X-Ray Angiographic Image Storage",
    _STORAGE + "12.1.1": "Enhanced XA Image Storage",
    _STORAGE + "12.2": "X-Ray Radiofluoroscopic Image Storage",
    _STORAGE + "12.2.1": "Enhanced XRF Image Storage",
    _STORAGE + "20": "Nuclear Medicine Image Storage",
    _STORAGE + "4.3": "Enhanced MR Color Image Storage",
    _STORAGE + "77.1.1": "VL Endoscopic Image Storage",
    _STORAGE + "77.1.2": "VL Microscopic Image Storage",
    _STORAGE + "77.1.4": "VL Photographic Image Storage",
    _STORAGE + "77.1.4.1": "Video Photographic Image Storage",
    _STORAGE + "77.1.5.1": "Ophthalmic Photography 8 Bit Image Storage",
}
"""Classes whose pixels often show names, dates or numbers; a person must look at them first."""

CLEANED_DESCRIPTORS = _tags(
    "StudyDescription SeriesDescription ProtocolName ContrastBolusAgent AcquisitionProtocolName"
)
"""Descriptors kept at the top level after cleaning (PS3.15 E.3.5); all others stay removed."""

DEVICE_IDENTITY = _tags(
    "DeviceSerialNumber DeviceUID StationName GantryID GeneratorID DetectorID ManufacturerDeviceIdentifier"
    " SourceManufacturer SourceSerialNumber TreatmentMachineName XRayDetectorID XRayDetectorLabel XRaySourceID"
    " LensMake LensModel LensSerialNumber LensSpecification PlateID CassetteID DeviceDescription"
)
"""Attributes kept by the Retain Device Identity Option (PS3.15 table E.1-1, column Rtn. Dev. Id.)."""

PATIENT_CHARACTERISTICS = _tags("PatientWeight PatientSize")

IDENTIFYING_DATES = _tags(
    "PatientBirthDate PatientBirthTime LastMenstrualDate AdmittingDate AdmittingTime DischargeDate"
)
"""Dates and times that the table's action removes even where other dates are shifted."""

OVERRIDES = {
    _tag("PatientName"): "SUBJECT",
    _tag("PatientID"): "SUBJECT",
    _tag("SpecificCharacterSet"): "KEEP",
    _tag("SOPClassUID"): "KEEP",
    _tag("PatientBirthDateInAlternativeCalendar"): "REMOVE",
    _tag("PatientDeathDateInAlternativeCalendar"): "REMOVE",
    _tag("IconImageSequence"): "REMOVE",
    _tag("DataSetTrailingPadding"): "REMOVE",
    _tag("RequestAttributesSequence"): "REMOVE",
    _tag("SourceImageSequence"): "REMOVE",
    _tag("ReferencedRawDataSequence"): "REMOVE",
    _tag("LongitudinalTemporalInformationModified"): "REMOVE",
    _tag("ImageComments"): "REMOVE",
    _tag("UID"): "MAP_UID",
}
"""Where the shipped table falls short or is less strict than we are."""

KEPT_TEXT = _tags(
    "Manufacturer ManufacturerModelName SoftwareVersions SequenceName PulseSequenceName ReceiveCoilName"
    " TransmitCoilName ReceiveCoilManufacturerName TransmitCoilManufacturerName ConvolutionKernel FilterType"
    " FilterMaterial AttenuationCorrectionMethod ScatterCorrectionMethod RandomsCorrectionMethod"
    " ReconstructionMethod Radiopharmaceutical CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning"
    " MappingResource ImagedNucleus MultiCoilElementName RescaleType DataCollectionCenterPatient"
    " ModalityLUTType LUTExplanation WindowCenterWidthExplanation PositionReferenceIndicator"
    " ContrastBolusRoute ReconstructionAlgorithm VolumetricProperties StackID DimensionDescriptionLabel"
    " DoseCalibrationFactor"
)
"""Text attributes (AE, AS, LO, LT, PN, SH, ST, UC, UN, UR, UT) that describe the device or the technique."""

SAFE_PRIVATE: dict[tuple[str, int, int], str] = {
    ("SIEMENS MR HEADER", 0x0019, 0x0A): "US",
    ("SIEMENS MR HEADER", 0x0019, 0x0B): "DS",
    ("SIEMENS MR HEADER", 0x0019, 0x0C): "IS",
    ("SIEMENS MR HEADER", 0x0019, 0x0D): "CS",
    ("SIEMENS MR HEADER", 0x0019, 0x0E): "FD",
    ("SIEMENS MR HEADER", 0x0019, 0x27): "FD",
    ("SIEMENS MR HEADER", 0x0019, 0x28): "FD",
    ("SIEMENS MR HEADER", 0x0019, 0x29): "FD",
    ("SIEMENS MR SDR 01", 0x0021, 0x1C): "IS",
    ("SIEMENS MR SDR 01", 0x0021, 0x53): "FD",
    ("GEMS_ACQU_01", 0x0019, 0x23): "DS",
    ("GEMS_ACQU_01", 0x0019, 0x24): "DS",
    ("GEMS_ACQU_01", 0x0019, 0x27): "DS",
    ("GEMS_ACQU_01", 0x0019, 0xBB): "DS",
    ("GEMS_ACQU_01", 0x0019, 0xBC): "DS",
    ("GEMS_ACQU_01", 0x0019, 0xBD): "DS",
    ("GEMS_PARM_01", 0x0043, 0x2C): "SS",
    ("GEMS_PARM_01", 0x0043, 0x2F): "SS",
    ("GEMS_PARM_01", 0x0043, 0x39): "IS",
    ("GEMS_PARM_01", 0x0043, 0x6F): "DS",
    ("GEMS_PARM_01", 0x0043, 0x83): "DS",
    ("GEMS_HELIOS_01", 0x0045, 0x01): "SS",
    ("GEMS_HELIOS_01", 0x0045, 0x02): "FL",
    ("Philips Imaging DD 001", 0x2001, 0x03): "FL",
    ("Philips Imaging DD 001", 0x2001, 0x04): "CS",
    ("Philips Imaging DD 001", 0x2001, 0x13): "SL",
    ("Philips Imaging DD 001", 0x2001, 0x1B): "FL",
    ("Philips Imaging DD 001", 0x2001, 0x22): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0x0D): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0x0E): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB0): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB1): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB2): "FL",
    ("Philips PET Private Group", 0x7053, 0x00): "DS",
    ("Philips PET Private Group", 0x7053, 0x09): "DS",
    ("ELSCINT1", 0x00E1, 0x21): "DS",
    ("Image Private Header", 0x0065, 0x09): "FD",
    ("Image Private Header", 0x0065, 0x37): "FD",
    ("Image Private Header", 0x0065, 0x50): "DS",
}
"""Private elements known to hold numbers or codes only, by creator, group and element (PS3.15 table E.3.10-1
and the vendors' conformance statements); a value that is not of the VR named here is removed."""
