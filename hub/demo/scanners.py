"""The demonstration's scanners: what each vendor writes for the same protocol, its effect on the signal.

The vendors' values follow published multi-vendor protocols (ADNI3 sagittal T1 and FLAIR; ACR CT head).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from hub.demo.phantom import ScannerEffect

T1_SLICES, FLAIR_SLICES, CT_SLICES, PET_SLICES = 20, 14, 12, 16
MATRIX_MR, MATRIX_CT, MATRIX_PET = 96, 128, 64


@dataclass(frozen=True, slots=True)
class Epoch:
    """A scanner's state from a day on: its software and coil, and the effect on the images."""

    start: date
    software_version: str
    coil: str
    effect: ScannerEffect


@dataclass(frozen=True, slots=True)
class Scanner:
    """One serial-numbered scanner with its dated history and the values it writes for each sequence."""

    site: str
    manufacturer: str
    model: str
    serial: str
    modality: str
    epochs: tuple[Epoch, ...]
    field_strength_t: float | None = None
    enhanced: bool = False
    sequences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def epoch(self, on: date) -> Epoch:
        """Return the state on a day; days before the first epoch belong to it."""
        started = [epoch for epoch in self.epochs if epoch.start <= on]
        return started[-1] if started else self.epochs[0]

    @property
    def key(self) -> str:
        return f"{self.site}-{self.modality}-{self.serial}"


_SIEMENS = {
    "t1": {
        "SeriesDescription": "T1_MPRAGE_SAG",
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SK", "SP", "MP"],
        "MRAcquisitionType": "3D",
        "SequenceName": "*tfl3d1_16ns",
        "RepetitionTime": 2300.0,
        "EchoTime": 2.98,
        "InversionTime": 900.0,
        "FlipAngle": 9.0,
        "PixelBandwidth": 240.0,
        "EchoTrainLength": 1,
        "InPlanePhaseEncodingDirection": "ROW",
    },
    "flair": {
        "SeriesDescription": "FLAIR_TRA",
        "ScanningSequence": ["SE", "IR"],
        "SequenceVariant": ["SK", "SP"],
        "MRAcquisitionType": "2D",
        "SequenceName": "*tir2d1_16",
        "RepetitionTime": 9000.0,
        "EchoTime": 91.0,
        "InversionTime": 2500.0,
        "FlipAngle": 150.0,
        "PixelBandwidth": 222.0,
        "EchoTrainLength": 16,
        "InPlanePhaseEncodingDirection": "ROW",
    },
}
_PHILIPS = {
    "t1": {
        **_SIEMENS["t1"],
        "SeriesDescription": "Sag3D MPRAGE",
        "ScanningSequence": "GR",
        "SequenceVariant": "MP",
        "SequenceName": None,
        "PulseSequenceName": "T1TFE",
        "RepetitionTime": 6.499786,
        "EchoTime": 2.93,
        "PixelBandwidth": 271.0,
    },
    "flair": {
        **_SIEMENS["flair"],
        "SeriesDescription": "Ax FLAIR TRA",
        "SequenceName": None,
        "PulseSequenceName": "TIR",
        "RepetitionTime": 11000.0,
        "EchoTime": 125.0,
        "InversionTime": 2800.0,
        "FlipAngle": 90.0,
        "PixelBandwidth": 210.0,
        "EchoTrainLength": 24,
    },
}
_GE = {
    "t1": {
        **_SIEMENS["t1"],
        "SeriesDescription": "Sag IR-FSPGR",
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SS", "SP"],
        "SequenceName": None,
        "PulseSequenceName": "BRAVO",
        "RepetitionTime": 7.308,
        "EchoTime": 3.06,
        "InversionTime": 400.0,
        "FlipAngle": 11.0,
        "PixelBandwidth": 244.141,
    },
    "flair": {
        **_SIEMENS["flair"],
        "SeriesDescription": "Ax T2 FLAIR",
        "SequenceName": None,
        "PulseSequenceName": "T2FLAIR",
        "RepetitionTime": 9002.0,
        "EchoTime": 117.6,
        "InversionTime": 2480.0,
        "FlipAngle": 142.0,
        "PixelBandwidth": 244.141,
        "EchoTrainLength": 24,
    },
}
_SIEMENS_XA = {
    name: {**values, "PulseSequenceName": values["SequenceName"], "SequenceName": None}
    for name, values in _SIEMENS.items()
}
_CT_GE = {
    "ct": {
        "SeriesDescription": "HEAD 5MM",
        "KVP": 120.0,
        "XRayTubeCurrent": 200,
        "Exposure": 200,
        "ExposureTime": 1000,
        "ConvolutionKernel": "STANDARD",
        "FilterType": "HEAD FILTER",
        "DataCollectionDiameter": 320.0,
    }
}
_CT_SIEMENS = {
    "ct": {
        "SeriesDescription": "Head  5.0  Hr40",
        "KVP": 120.0,
        "XRayTubeCurrent": 247,
        "Exposure": 247,
        "ExposureTime": 1000,
        "ConvolutionKernel": "Hr40f",
        "FilterType": "FLAT",
        "DataCollectionDiameter": 300.0,
    }
}

_PET_SIEMENS = {"pet": {"SeriesDescription": "PET FDG BRAIN"}}

TRIAL_START = date(2025, 1, 6)
UPGRADE_DATE = date(2026, 1, 12)


def _epoch(software: str, coil: str, effect: ScannerEffect, start: date = TRIAL_START) -> Epoch:
    return Epoch(start, software, coil, effect)


SCANNERS: tuple[Scanner, ...] = (
    Scanner(
        "S01", "SIEMENS", "Prisma", "166001", "MR",
        (
            _epoch("syngo MR E11", "HeadNeck_64", ScannerEffect(1.00, 24.0, 0.08, 0.0)),
            _epoch("syngo MR XA30", "HeadNeck_64", ScannerEffect(1.12, 20.0, 0.08, 0.5), UPGRADE_DATE),
        ),
        3.0, sequences=_SIEMENS,
    ),
    Scanner(
        "S02", "Philips Medical Systems", "Ingenia", "42102", "MR",
        (_epoch("5.3.1\\5.3.1.0", "MULTI COIL", ScannerEffect(0.85, 30.0, 0.10, 0.3)),),
        3.0, sequences=_PHILIPS,
    ),
    Scanner(
        "S03", "GE MEDICAL SYSTEMS", "DISCOVERY MR750", "0000312345MR3T", "MR",
        (_epoch("27\\LX\\DV26.0_R03_1831.b", "RM:Nova32ch", ScannerEffect(1.25, 27.0, 0.18, 0.3)),),
        3.0, sequences=_GE,
    ),
    Scanner(
        "S04", "SIEMENS", "Skyra", "145204", "MR",
        (_epoch("syngo MR E11", "Head_32", ScannerEffect(0.95, 26.0, 0.10, 0.2)),),
        3.0, sequences=_SIEMENS,
    ),
    Scanner(
        "S05", "Siemens Healthineers", "MAGNETOM Vida", "175505", "MR",
        (_epoch("syngo MR XA31", "HeadNeck_64", ScannerEffect(1.08, 22.0, 0.06, 0.0)),),
        3.0, enhanced=True, sequences=_SIEMENS_XA,
    ),
    Scanner(
        "S01", "SIEMENS", "SOMATOM Force", "75101", "CT",
        (_epoch("syngo CT VB20A", "", ScannerEffect(1, 4.0, 0, 0.4)),), sequences=_CT_SIEMENS,
    ),
    Scanner(
        "S02", "GE MEDICAL SYSTEMS", "Revolution CT", "REV202", "CT",
        (_epoch("revo_ct_22bc.50", "", ScannerEffect(1, 5.0, 0, 0.5)),), sequences=_CT_GE,
    ),
    Scanner(
        "S03", "GE MEDICAL SYSTEMS", "Revolution EVO", "EVO303", "CT",
        (_epoch("revo_evo_18mw38.9", "", ScannerEffect(1, 5.5, 0, 0.5)),), sequences=_CT_GE,
    ),
    Scanner(
        "S04", "SIEMENS", "SOMATOM Definition AS+", "65404", "CT",
        (_epoch("syngo CT VA48A", "", ScannerEffect(1, 4.5, 0, 0.4)),), sequences=_CT_SIEMENS,
    ),
    Scanner(
        "S05", "SIEMENS", "SOMATOM Force", "75505", "CT",
        (_epoch("syngo CT VB20A", "", ScannerEffect(1, 4.2, 0, 0.4)),), sequences=_CT_SIEMENS,
    ),
    Scanner(
        "S01", "SIEMENS", "Biograph mCT", "10880", "PT",
        (_epoch("VG60A", "", ScannerEffect(1, 0.1, 0, 0)),), sequences=_PET_SIEMENS,
    ),
)  # fmt: skip


def scanner_of(site: str, modality: str) -> Scanner:
    """Return the site's scanner of a modality.

    Raises LookupError where the site has none.
    """
    for scanner in SCANNERS:
        if scanner.site == site and scanner.modality == modality:
            return scanner
    raise LookupError(f"Site {site} has no {modality} scanner in the demonstration trial.")
