"""The acquisition parameters the hub reads: tag, unit, kind, and where enhanced objects keep them.

Tags, VRs and units from PS3.3 and PS3.6. Derived parameters have no tag; `aggregate` computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParameterDefinition:
    """One acquisition parameter.

    `tag` is the tag in a classic object, () for a derived parameter; a path of several tags goes through the
    first item of each sequence. `enhanced` lists other paths: in the shared or a per-frame functional group
    item where the first tag is a functional group, else from the top. `private` lists (creator, group,
    element) where a maker keeps the same plain number, read where the public places are empty. `kind` is
    number, integer, text, text_list, vector, date, time, datetime or boolean. A number with several values is
    a tuple. Values stay as the file states them: a field strength of 15000 (gauss) or a frequency in Hz is not
    converted, so that a rule in the catalogue's unit finds it deviant in place of guessing.
    """

    keyword: str
    tag: Path
    label: str
    unit: str
    kind: str
    modalities: frozenset[str]
    enhanced: tuple[Path, ...] = ()
    private: tuple[tuple[str, int, int], ...] = ()
    where_private: str = ""

    @property
    def derived(self) -> bool:
        return not self.tag and not self.private


_ANY = frozenset({"MR", "CT", "PT"})
_MR, _CT, _PT = frozenset({"MR"}), frozenset({"CT"}), frozenset({"PT"})

_PIXEL_MEASURES, _PLANE_ORIENTATION = 0x00289110, 0x00209116
_MR_TIMING, _MR_MODIFIER, _MR_ECHO, _MR_FOV = 0x00189112, 0x00189115, 0x00189114, 0x00189125
_MR_IMAGING, _MR_AVERAGES, _MR_DIFFUSION = 0x00189006, 0x00189119, 0x00189117
_CT_EXPOSURE, _CT_ACQUISITION, _CT_TABLE = 0x00189321, 0x00189304, 0x00189308
_CT_RECONSTRUCTION, _CT_XRAY = 0x00189314, 0x00189325
_TRANSFORMATION, _RADIOPHARMACEUTICAL = 0x00289145, 0x00540016

_Row = (
    tuple[str, int | Path, str, str, str, frozenset[str]]
    | tuple[str, int | Path, str, str, str, frozenset[str], tuple]
)
_ROWS: tuple[_Row, ...] = (
    ("Manufacturer", 0x00080070, "Manufacturer", "", "text", _ANY),
    ("ManufacturerModelName", 0x00081090, "Model", "", "text", _ANY),
    ("DeviceSerialNumber", 0x00181000, "Device serial number", "", "text", _ANY),
    ("StationName", 0x00081010, "Station name", "", "text", _ANY),
    ("SoftwareVersions", 0x00181020, "Software versions", "", "text_list", _ANY),
    ("Modality", 0x00080060, "Modality", "", "text", _ANY),
    ("SOPClassUID", 0x00080016, "SOP class", "", "text", _ANY),
    ("ImageType", 0x00080008, "Image type", "", "text_list", _ANY),
    ("StudyDescription", 0x00081030, "Study description", "", "text", _ANY),
    ("SeriesDescription", 0x0008103E, "Series description", "", "text", _ANY),
    ("ProtocolName", 0x00181030, "Protocol name", "", "text", _ANY),
    ("SeriesNumber", 0x00200011, "Series number", "", "integer", _ANY),
    ("AcquisitionNumber", 0x00200012, "Acquisition number", "", "integer", _ANY),
    ("BodyPartExamined", 0x00180015, "Body part examined", "", "text", _ANY),
    ("Laterality", 0x00200060, "Laterality", "", "text", _ANY),
    ("PatientPosition", 0x00185100, "Patient position", "", "text", _ANY),
    ("Rows", 0x00280010, "Rows", "px", "integer", _ANY),
    ("Columns", 0x00280011, "Columns", "px", "integer", _ANY),
    ("PixelSpacing", 0x00280030, "Pixel spacing", "mm", "vector", _ANY, ((_PIXEL_MEASURES, 0x00280030),)),
    ("SliceThickness", 0x00180050, "Slice thickness", "mm", "number", _ANY, ((_PIXEL_MEASURES, 0x00180050),)),
    (
        "SpacingBetweenSlices",
        0x00180088,
        "Spacing between slices",
        "mm",
        "number",
        _ANY,
        ((_PIXEL_MEASURES, 0x00180088),),
    ),
    (
        "ImageOrientationPatient",
        0x00200037,
        "Image orientation",
        "",
        "vector",
        _ANY,
        ((_PLANE_ORIENTATION, 0x00200037),),
    ),
    ("PhotometricInterpretation", 0x00280004, "Photometric interpretation", "", "text", _ANY),
    ("BitsAllocated", 0x00280100, "Bits allocated", "", "integer", _ANY),
    ("BitsStored", 0x00280101, "Bits stored", "", "integer", _ANY),
    ("PixelRepresentation", 0x00280103, "Pixel representation", "", "integer", _ANY),
    ("LossyImageCompression", 0x00282110, "Lossy compression", "", "text", _ANY),
    ("ContrastBolusAgent", 0x00180010, "Contrast agent", "", "text", _ANY),
    ("AcquisitionDate", 0x00080022, "Acquisition date", "", "date", _ANY),
    ("AcquisitionTime", 0x00080032, "Acquisition time", "", "time", _ANY),
    ("AcquisitionDateTime", 0x0008002A, "Acquisition date and time", "", "datetime", _ANY),
    ("SeriesTime", 0x00080031, "Series time", "", "time", _ANY),
    ("ImagesInAcquisition", 0x00201002, "Images in acquisition", "", "integer", _ANY),
    ("MagneticFieldStrength", 0x00180087, "Magnetic field strength", "T", "number", _MR),
    ("ImagedNucleus", 0x00180085, "Imaged nucleus", "", "text", _MR, ((0x00189100,),)),
    ("ImagingFrequency", 0x00180084, "Imaging frequency", "MHz", "number", _MR, ((_MR_IMAGING, 0x00189098),)),
    ("ScanningSequence", 0x00180020, "Scanning sequence", "", "text_list", _MR),
    ("SequenceVariant", 0x00180021, "Sequence variant", "", "text_list", _MR),
    ("ScanOptions", 0x00180022, "Scan options", "", "text_list", _MR | _CT),
    ("MRAcquisitionType", 0x00180023, "MR acquisition type", "", "text", _MR),
    ("SequenceName", 0x00180024, "Sequence name", "", "text", _MR, ((0x00189005,),)),
    ("EchoPulseSequence", 0x00189008, "Echo pulse sequence", "", "text", _MR),
    ("AngioFlag", 0x00180025, "Angiography", "", "boolean", _MR),
    ("VariableFlipAngleFlag", 0x00181315, "Variable flip angle", "", "boolean", _MR),
    ("RepetitionTime", 0x00180080, "TR", "ms", "number", _MR, ((_MR_TIMING, 0x00180080),)),
    ("EchoTime", 0x00180081, "TE", "ms", "number", _MR, ((_MR_ECHO, 0x00189082),)),
    ("InversionTime", 0x00180082, "TI", "ms", "number", _MR, ((_MR_MODIFIER, 0x00189079),)),
    ("TriggerTime", 0x00181060, "Trigger time", "ms", "number", _MR),
    ("FlipAngle", 0x00181314, "Flip angle", "deg", "number", _MR, ((_MR_TIMING, 0x00181314),)),
    (
        "EchoTrainLength",
        0x00180091,
        "Echo train length",
        "",
        "integer",
        _MR,
        ((_MR_TIMING, 0x00180091), (_MR_TIMING, 0x00189240)),
    ),
    ("EchoNumbers", 0x00180086, "Echo numbers", "", "integer", _MR),
    ("NumberOfAverages", 0x00180083, "Averages", "", "number", _MR, ((_MR_AVERAGES, 0x00180083),)),
    ("PixelBandwidth", 0x00180095, "Pixel bandwidth", "Hz/px", "number", _MR, ((_MR_IMAGING, 0x00180095),)),
    ("AcquisitionMatrix", 0x00181310, "Acquisition matrix", "px", "vector", _MR),
    (
        "NumberOfPhaseEncodingSteps",
        0x00180089,
        "Phase-encoding steps",
        "",
        "integer",
        _MR,
        ((_MR_FOV, 0x00189231),),
    ),
    ("PercentSampling", 0x00180093, "Percent sampling", "%", "number", _MR, ((_MR_FOV, 0x00180093),)),
    (
        "PercentPhaseFieldOfView",
        0x00180094,
        "Percent phase field of view",
        "%",
        "number",
        _MR,
        ((_MR_FOV, 0x00180094),),
    ),
    (
        "InPlanePhaseEncodingDirection",
        0x00181312,
        "Phase-encoding direction",
        "",
        "text",
        _MR,
        ((_MR_FOV, 0x00181312),),
    ),
    ("ReceiveCoilName", 0x00181250, "Receive coil", "", "text", _MR, ((0x00189042, 0x00181250),)),
    ("TransmitCoilName", 0x00181251, "Transmit coil", "", "text", _MR, ((0x00189049, 0x00181251),)),
    (
        "ParallelReductionFactorInPlane",
        0x00189069,
        "In-plane acceleration",
        "",
        "number",
        _MR,
        ((_MR_MODIFIER, 0x00189069),),
    ),
    (
        "ParallelReductionFactorOutOfPlane",
        0x00189155,
        "Out-of-plane acceleration",
        "",
        "number",
        _MR,
        ((_MR_MODIFIER, 0x00189155),),
    ),
    (
        "ParallelAcquisitionTechnique",
        0x00189078,
        "Parallel technique",
        "",
        "text",
        _MR,
        ((_MR_MODIFIER, 0x00189078),),
    ),
    ("PartialFourier", 0x00189081, "Partial Fourier", "", "boolean", _MR, ((_MR_MODIFIER, 0x00189081),)),
    (
        "PartialFourierDirection",
        0x00189036,
        "Partial Fourier direction",
        "",
        "text",
        _MR,
        ((_MR_MODIFIER, 0x00189036),),
    ),
    ("DiffusionBValue", 0x00189087, "b-value", "s/mm2", "number", _MR, ((_MR_DIFFUSION, 0x00189087),)),
    (
        "DiffusionGradientOrientation",
        0x00189089,
        "Diffusion gradient orientation",
        "",
        "vector",
        _MR,
        ((_MR_DIFFUSION, 0x00189076, 0x00189089),),
    ),
    ("NumberOfTemporalPositions", 0x00200105, "Temporal positions", "", "integer", _MR | _PT),
    ("TemporalResolution", 0x00200110, "Temporal resolution", "ms", "number", _MR),
    ("SAR", 0x00181316, "SAR", "W/kg", "number", _MR, ((0x00189239, 0x00189181),)),
    (
        "RectilinearPhaseEncodeReordering",
        0x00189034,
        "Phase-encode reordering",
        "",
        "text",
        _MR,
    ),
    ("KVP", 0x00180060, "Tube voltage", "kV", "number", _CT, ((_CT_XRAY, 0x00180060),)),
    ("XRayTubeCurrent", 0x00181151, "Tube current", "mA", "number", _CT, ((_CT_EXPOSURE, 0x00189330),)),
    ("ExposureTime", 0x00181150, "Exposure time", "ms", "number", _CT, ((_CT_EXPOSURE, 0x00189328),)),
    ("Exposure", 0x00181152, "Exposure", "mAs", "number", _CT, ((_CT_EXPOSURE, 0x00189332),)),
    (
        "ConvolutionKernel",
        0x00181210,
        "Convolution kernel",
        "",
        "text_list",
        _CT | _PT,
        ((_CT_RECONSTRUCTION, 0x00181210),),
    ),
    (
        "ReconstructionAlgorithm",
        0x00189315,
        "Reconstruction algorithm",
        "",
        "text",
        _CT,
        ((_CT_RECONSTRUCTION, 0x00189315),),
    ),
    ("SpiralPitchFactor", 0x00189311, "Spiral pitch factor", "", "number", _CT, ((_CT_TABLE, 0x00189311),)),
    (
        "SingleCollimationWidth",
        0x00189306,
        "Single collimation width",
        "mm",
        "number",
        _CT,
        ((_CT_ACQUISITION, 0x00189306),),
    ),
    (
        "TotalCollimationWidth",
        0x00189307,
        "Total collimation width",
        "mm",
        "number",
        _CT,
        ((_CT_ACQUISITION, 0x00189307),),
    ),
    ("RevolutionTime", 0x00189305, "Revolution time", "s", "number", _CT, ((_CT_ACQUISITION, 0x00189305),)),
    (
        "TableFeedPerRotation",
        0x00189310,
        "Table feed per rotation",
        "mm",
        "number",
        _CT,
        ((_CT_TABLE, 0x00189310),),
    ),
    ("CTDIvol", 0x00189345, "CTDIvol", "mGy", "number", _CT, ((_CT_EXPOSURE, 0x00189345),)),
    (
        "ReconstructionDiameter",
        0x00181100,
        "Reconstruction diameter",
        "mm",
        "number",
        _CT | _PT,
        ((_CT_RECONSTRUCTION, 0x00181100),),
    ),
    ("DataCollectionDiameter", 0x00180090, "Data collection diameter", "mm", "number", _CT),
    ("FilterType", 0x00181160, "Filter type", "", "text", _CT, ((_CT_XRAY, 0x00181160),)),
    (
        "ExposureModulationType",
        0x00189323,
        "Exposure modulation",
        "",
        "text",
        _CT,
        ((_CT_EXPOSURE, 0x00189323),),
    ),
    ("GantryDetectorTilt", 0x00181120, "Gantry tilt", "deg", "number", _CT, ((_CT_ACQUISITION, 0x00181120),)),
    ("FocalSpots", 0x00181190, "Focal spots", "mm", "vector", _CT, ((_CT_XRAY, 0x00181190),)),
    ("RescaleSlope", 0x00281053, "Rescale slope", "", "number", _ANY, ((_TRANSFORMATION, 0x00281053),)),
    (
        "RescaleIntercept",
        0x00281052,
        "Rescale intercept",
        "",
        "number",
        _ANY,
        ((_TRANSFORMATION, 0x00281052),),
    ),
    ("RescaleType", 0x00281054, "Rescale type", "", "text", _ANY, ((_TRANSFORMATION, 0x00281054),)),
    ("Units", 0x00541001, "Pixel units", "", "text", _PT),
    ("DecayCorrection", 0x00541102, "Decay correction", "", "text", _PT),
    ("CorrectedImage", 0x00280051, "Corrections", "", "text_list", _PT),
    ("AttenuationCorrectionMethod", 0x00541101, "Attenuation correction", "", "text", _PT),
    ("ScatterCorrectionMethod", 0x00541105, "Scatter correction", "", "text", _PT),
    ("RandomsCorrectionMethod", 0x00541100, "Randoms correction", "", "text", _PT),
    ("ReconstructionMethod", 0x00541103, "Reconstruction method", "", "text", _PT),
    ("ActualFrameDuration", 0x00181242, "Frame duration", "ms", "number", _PT),
    ("FrameReferenceTime", 0x00541300, "Frame reference time", "ms", "number", _PT),
    ("DecayFactor", 0x00541321, "Decay factor", "", "number", _PT),
    ("PatientWeight", 0x00101030, "Patient weight", "kg", "number", _PT),
    ("PatientSize", 0x00101020, "Patient size", "m", "number", _PT),
    ("RadionuclideTotalDose", (_RADIOPHARMACEUTICAL, 0x00181074), "Injected activity", "Bq", "number", _PT),
    ("RadionuclideHalfLife", (_RADIOPHARMACEUTICAL, 0x00181075), "Half-life", "s", "number", _PT),
    (
        "RadiopharmaceuticalStartDateTime",
        (_RADIOPHARMACEUTICAL, 0x00181078),
        "Injection date and time",
        "",
        "datetime",
        _PT,
    ),
    ("RadiopharmaceuticalStartTime", (_RADIOPHARMACEUTICAL, 0x00181072), "Injection time", "", "time", _PT),
    ("Radiopharmaceutical", (_RADIOPHARMACEUTICAL, 0x00180031), "Radiopharmaceutical", "", "text", _PT),
    (
        "RadionuclideCode",
        (_RADIOPHARMACEUTICAL, 0x00540300, 0x00080104),
        "Radionuclide",
        "",
        "text",
        _PT,
    ),
    ("SeriesType", 0x00541000, "Series type", "", "text_list", _PT),
    ("NumberOfSlices", 0x00540081, "Slices stated by the scanner", "", "integer", _PT),
    ("NumberOfTimeSlices", 0x00540101, "Time slices", "", "integer", _PT),
    ("CollimatorType", 0x00181181, "Collimator type", "", "text", _PT),
    ("NumberOfImagesInMosaic", (), "Images in mosaic", "", "integer", _MR),
    ("BandwidthPerPixelPhaseEncode", (), "Bandwidth per pixel (phase encoding)", "Hz/px", "number", _MR),
    ("VoxelSize", (), "Voxel size (row, column, slice pitch)", "mm", "vector", _ANY),
    ("SlicePitch", (), "Slice pitch", "mm", "number", _ANY),
    ("NumberOfPositions", (), "Slice positions", "", "integer", _ANY),
    ("NumberOfVolumes", (), "Volumes", "", "integer", _ANY),
    ("NumberOfFrames", (), "Frames", "", "integer", _ANY),
    ("NumberOfInstances", (), "Instances", "", "integer", _ANY),
    ("MissingSlices", (), "Missing slices", "", "integer", _ANY),
    ("SlabCoverage", (), "Slab coverage", "mm", "number", _ANY),
    ("FieldOfView", (), "Field of view (rows, columns)", "mm", "vector", _ANY),
    ("PlaneOrientation", (), "Plane", "", "text", _ANY),
    ("EffectiveEchoSpacing", (), "Effective echo spacing", "s", "number", _MR),
    ("UptakeTime", (), "Uptake time", "min", "number", _PT),
    ("InjectedActivityPerWeight", (), "Injected activity per weight", "MBq/kg", "number", _PT),
)

_PRIVATE_SOURCES = {
    "DiffusionBValue": "GE (0043,1039)",
    "ParallelReductionFactorInPlane": "Siemens (0051,1011); GE (0043,1083); UIH (0065,100D)",
    "ReceiveCoilName": "Siemens (0051,100F); GE (0043,1081)",
    "EffectiveEchoSpacing": "GE (0043,102C); UIH (0019,1028)",
}


_PRIVATE: dict[str, tuple[tuple[str, int, int], ...]] = {
    "DiffusionBValue": (
        ("SIEMENS MR HEADER", 0x0019, 0x0C),
        ("Philips Imaging DD 001", 0x2001, 0x03),
        ("Image Private Header", 0x0065, 0x09),
    ),
    "InversionTime": (("Philips Imaging DD 001", 0x2001, 0x1B),),
    "NumberOfImagesInMosaic": (("SIEMENS MR HEADER", 0x0019, 0x0A), ("Image Private Header", 0x0065, 0x50)),
    "BandwidthPerPixelPhaseEncode": (("SIEMENS MR HEADER", 0x0019, 0x28),),
}


def _definition(row: tuple) -> ParameterDefinition:
    keyword, tag, label, unit, kind, modalities = row[:6]
    path = (tag,) if isinstance(tag, int) else tag
    enhanced = row[6] if len(row) > 6 else ()
    return ParameterDefinition(
        keyword,
        path,
        label,
        unit,
        kind,
        modalities,
        enhanced,
        _PRIVATE.get(keyword, ()),
        _PRIVATE_SOURCES.get(keyword, ""),
    )


PARAMETERS: dict[str, ParameterDefinition] = {row[0]: _definition(row) for row in _ROWS}
DESCRIPTORS = frozenset({"StudyDescription", "SeriesDescription", "ProtocolName", "ContrastBolusAgent"})
