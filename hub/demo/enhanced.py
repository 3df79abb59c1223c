"""Headers of simulated enhanced MR: shared and per-frame functional groups (PS3.3 A.36.2, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hub.demo.encoding import Elements, Key
from hub.demo.headers import AXIAL, Equipment, Grid, date_text, time_text


def enhanced_mr(
    equipment: Equipment, parameters: Mapping[str, Any], grid: Grid, order: Sequence[int], taken: datetime
) -> dict[Key, Any]:
    """Return the Enhanced MR Image modules (PS3.3 A.36.2) with `order` as the slices present."""
    frequency = 42.577 * (equipment.field_strength_t or 0)
    top: dict[Key, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "T1", "NONE"],
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1",
        "SeriesDescription": parameters["SeriesDescription"],
        "ProtocolName": parameters["SeriesDescription"],
        "MagneticFieldStrength": equipment.field_strength_t,
        "ResonantNucleus": "1H",
        "KSpaceFiltering": "NONE",
        "PulseSequenceName": parameters["PulseSequenceName"],
        "MRAcquisitionType": parameters.get("MRAcquisitionType"),
        "EchoPulseSequence": "GRADIENT" if "GR" in parameters["ScanningSequence"] else "SPIN",
        "SteadyStatePulseSequence": "NONE",
        "MultipleSpinEcho": "NO",
        "PhaseContrast": "NO",
        "AcquisitionDateTime": f"{date_text(taken)}{time_text(taken)}",
        "AcquisitionDuration": 240.0,
        "NumberOfFrames": len(order),
        "ContentQualification": "RESEARCH",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
        "SharedFunctionalGroupsSequence": [_shared_groups(equipment, parameters, grid, frequency)],
        "PerFrameFunctionalGroupsSequence": [
            _frame_groups(grid, index, number, taken) for number, index in enumerate(order, start=1)
        ],
    }
    return {key: value for key, value in top.items() if value is not None}


def _present(elements: Mapping[Key, Any]) -> dict[Key, Any]:
    return {key: value for key, value in elements.items() if value is not None}


def _shared_groups(
    equipment: Equipment, parameters: Mapping[str, Any], grid: Grid, frequency: float
) -> dict[Key, Any]:
    get = parameters.get
    inversion = get("InversionTime")
    return {
        "MRTimingAndRelatedParametersSequence": [
            _present(
                {
                    "RepetitionTime": get("RepetitionTime"),
                    "FlipAngle": get("FlipAngle"),
                    "EchoTrainLength": get("EchoTrainLength"),
                    "RFEchoTrainLength": get("EchoTrainLength"),
                    "GradientEchoTrainLength": 0,
                }
            )
        ],
        "MREchoSequence": [_present({"EffectiveEchoTime": get("EchoTime")})],
        "MRModifierSequence": [
            _present({"InversionRecovery": "YES", "InversionTimes": inversion, "PartialFourier": "NO"})
        ],
        "MRImagingModifierSequence": [
            {
                "PixelBandwidth": float(get("PixelBandwidth", 240.0)),
                "TransmitterFrequency": frequency,
                "MagnetizationTransfer": "NONE",
            }
        ],
        "MRReceiveCoilSequence": [_present({"ReceiveCoilName": get("ReceiveCoilName", equipment.coil)})],
        "MRAveragesSequence": [{"NumberOfAverages": 1.0}],
        "MRFOVGeometrySequence": [
            {
                "InPlanePhaseEncodingDirection": get("InPlanePhaseEncodingDirection", "ROW"),
                "MRAcquisitionFrequencyEncodingSteps": grid.columns,
                "MRAcquisitionPhaseEncodingStepsInPlane": grid.rows,
                "PercentSampling": 100.0,
                "PercentPhaseFieldOfView": 100.0,
            }
        ],
        "PixelMeasuresSequence": [
            {
                "SliceThickness": grid.thickness_mm,
                "SpacingBetweenSlices": grid.pitch_mm,
                "PixelSpacing": get("PixelSpacing", [grid.spacing_mm, grid.spacing_mm]),
            }
        ],
        "PlaneOrientationSequence": [{"ImageOrientationPatient": list(AXIAL)}],
        "PixelValueTransformationSequence": [{"RescaleIntercept": 0, "RescaleSlope": 1, "RescaleType": "US"}],
        "MRImageFrameTypeSequence": [{"FrameType": ["ORIGINAL", "PRIMARY", "T1", "NONE"]}],
    }


def _frame_groups(grid: Grid, index: int, number: int, taken: datetime) -> Elements:
    return {
        "FrameContentSequence": [
            {
                "FrameAcquisitionNumber": 1,
                "FrameAcquisitionDateTime": f"{date_text(taken)}{time_text(taken)}",
                "DimensionIndexValues": [1, number],
                "TemporalPositionIndex": 1,
                "StackID": "1",
                "InStackPositionNumber": number,
            }
        ],
        "PlanePositionSequence": [{"ImagePositionPatient": list(grid.position(index))}],
    }
