"""The demonstration's acquisition protocol (hub.protocol/1): rules of every kind, per vendor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.demo.cohort import BASELINE, MONTH_12
from hub.demo.scanners import CT_SLICES, FLAIR_SLICES, T1_SLICES

Rule = dict[str, Any]

MANUFACTURERS: Mapping[str, str] = {"siemens": "SIEMENS", "philips": "Philips", "ge": "GE"}

T1_TIMES: Mapping[str, Mapping[str, float]] = {
    "siemens": {"RepetitionTime": 2300.0, "EchoTime": 2.98, "InversionTime": 900.0, "FlipAngle": 9.0},
    "philips": {"RepetitionTime": 6.5, "EchoTime": 2.93, "InversionTime": 900.0, "FlipAngle": 9.0},
    "ge": {"RepetitionTime": 7.3, "EchoTime": 3.06, "InversionTime": 400.0, "FlipAngle": 11.0},
}
FLAIR_TIMES: Mapping[str, Mapping[str, float]] = {
    "siemens": {"RepetitionTime": 9000.0, "EchoTime": 91.0, "InversionTime": 2500.0},
    "philips": {"RepetitionTime": 11000.0, "EchoTime": 125.0, "InversionTime": 2800.0},
    "ge": {"RepetitionTime": 9000.0, "EchoTime": 117.6, "InversionTime": 2480.0},
}
T1_TR_TOLERANCE_MS: Mapping[str, float] = {"siemens": 10.0, "philips": 0.1, "ge": 0.1}


def protocol_document() -> dict[str, Any]:
    """Return the draft protocol as a JSON document."""
    return {
        "schema": "hub.protocol/1",
        "name": "demo-head",
        "title": "Head: T1, FLAIR, CT, and FDG PET in a substudy",
        "description": "Acquisition protocol of the demonstration trial.",
        "sources": ["ADNI3 MRI protocols for the vendors' T1 and FLAIR values; slices are few, to be quick."],
        "series": [_t1(), _flair(), _ct(), _pet()],
    }


def _for(vendor: str, rule: Rule) -> Rule:
    return {**rule, "applies_to": {"manufacturer": [MANUFACTURERS[vendor]]}}


def _absolute(rule_id: str, parameter: str, value: float, tolerance: float, unit: str, severity: str) -> Rule:
    return {
        "id": rule_id,
        "kind": "tolerance_absolute",
        "parameter": parameter,
        "value": value,
        "tolerance": tolerance,
        "unit": unit,
        "severity": severity,
    }


def _relative(rule_id: str, parameter: str, value: float, percent: float, unit: str, severity: str) -> Rule:
    return {
        "id": rule_id,
        "kind": "tolerance_relative",
        "parameter": parameter,
        "value": value,
        "tolerance_percent": percent,
        "unit": unit,
        "severity": severity,
    }


def _positions(rule_id: str, slices: int) -> Rule:
    return {
        "id": rule_id,
        "kind": "count",
        "of": "positions",
        "min": slices,
        "max": slices,
        "severity": "critical",
    }


def _echo_time_between(low: float, high: float) -> list[dict[str, Any]]:
    return [{"kind": "range", "parameter": "EchoTime", "min": low, "max": high, "unit": "ms"}]


def _t1() -> dict[str, Any]:
    rules: list[Rule] = [
        {
            "id": "t1-acquisition-type",
            "kind": "equals",
            "parameter": "MRAcquisitionType",
            "value": "3D",
            "severity": "critical",
        },
        _absolute("t1-field-strength", "MagneticFieldStrength", 3.0, 0.15, "T", "critical"),
        {
            "id": "t1-phase-encoding",
            "kind": "one_of",
            "parameter": "InPlanePhaseEncodingDirection",
            "values": ["ROW", "COL"],
            "severity": "minor",
        },
        {
            "id": "t1-bandwidth",
            "kind": "range",
            "parameter": "PixelBandwidth",
            "min": 200,
            "max": 300,
            "unit": "Hz/px",
            "severity": "minor",
        },
        {
            "id": "t1-pixel-spacing",
            "kind": "vector",
            "parameter": "PixelSpacing",
            "value": [2.5, 2.5],
            "tolerance": 0.01,
            "unit": "mm",
            "severity": "critical",
        },
        {"id": "t1-coil", "kind": "present", "parameter": "ReceiveCoilName", "severity": "minor"},
        {"id": "t1-serial-number", "kind": "present", "parameter": "DeviceSerialNumber", "severity": "major"},
        {
            "id": "t1-contrast-agent",
            "kind": "absent",
            "parameter": "ContrastBolusAgent",
            "severity": "critical",
        },
        _positions("t1-slices", T1_SLICES),
    ]
    for vendor, times in T1_TIMES.items():
        tolerance = T1_TR_TOLERANCE_MS[vendor]
        rules += [
            _for(vendor, rule)
            for rule in (
                _absolute(
                    f"t1-tr-{vendor}", "RepetitionTime", times["RepetitionTime"], tolerance, "ms", "critical"
                ),
                _relative(f"t1-te-{vendor}", "EchoTime", times["EchoTime"], 5, "ms", "critical"),
                _absolute(f"t1-ti-{vendor}", "InversionTime", times["InversionTime"], 10, "ms", "major"),
                _absolute(f"t1-flip-angle-{vendor}", "FlipAngle", times["FlipAngle"], 0.5, "deg", "major"),
            )
        ]
    return {
        "key": "t1",
        "title": "T1, 3-D",
        "modality": "MR",
        "visits": [BASELINE, MONTH_12],
        "match": _echo_time_between(0.5, 20),
        "rules": rules,
    }


def _flair() -> dict[str, Any]:
    rules: list[Rule] = [
        {
            "id": "flair-acquisition-type",
            "kind": "equals",
            "parameter": "MRAcquisitionType",
            "value": "2D",
            "severity": "major",
        },
        _absolute("flair-slice-thickness", "SliceThickness", 7.0, 0.05, "mm", "major"),
        _positions("flair-slices", FLAIR_SLICES),
    ]
    for vendor, times in FLAIR_TIMES.items():
        rules += [
            _for(vendor, _relative(f"flair-{name}-{vendor}", keyword, times[keyword], 3, "ms", "major"))
            for name, keyword in (("tr", "RepetitionTime"), ("te", "EchoTime"), ("ti", "InversionTime"))
        ]
    return {
        "key": "flair",
        "title": "T2 FLAIR",
        "modality": "MR",
        "visits": [BASELINE, MONTH_12],
        "match": _echo_time_between(60, 200),
        "rules": rules,
    }


def _ct() -> dict[str, Any]:
    return {
        "key": "ct",
        "title": "CT of the head",
        "modality": "CT",
        "visits": [BASELINE],
        "match": [],
        "rules": [
            {
                "id": "ct-tube-voltage",
                "kind": "one_of",
                "parameter": "KVP",
                "values": [100, 120],
                "unit": "kV",
                "severity": "major",
            },
            {
                "id": "ct-exposure",
                "kind": "range",
                "parameter": "Exposure",
                "min": 150,
                "max": 300,
                "unit": "mAs",
                "severity": "minor",
            },
            _absolute("ct-slice-thickness", "SliceThickness", 8.0, 0.05, "mm", "major"),
            _positions("ct-slices", CT_SLICES),
            _for(
                "siemens",
                {
                    "id": "ct-kernel-siemens",
                    "kind": "regex",
                    "parameter": "ConvolutionKernel",
                    "pattern": "(Hr|Hc|J|H)[34][0-9][a-z]?",
                    "severity": "major",
                },
            ),
            _for(
                "ge",
                {
                    "id": "ct-kernel-ge",
                    "kind": "regex",
                    "parameter": "ConvolutionKernel",
                    "pattern": "STANDARD|SOFT",
                    "severity": "major",
                },
            ),
        ],
    }


def _pet() -> dict[str, Any]:
    return {
        "key": "pet",
        "title": "FDG PET of the brain (substudy)",
        "modality": "PT",
        "required": False,
        "visits": [MONTH_12],
        "match": [],
        "rules": [
            {
                "id": "pet-units",
                "kind": "equals",
                "parameter": "Units",
                "value": "BQML",
                "severity": "critical",
            },
            {
                "id": "pet-decay-correction",
                "kind": "one_of",
                "parameter": "DecayCorrection",
                "values": ["START", "ADMIN"],
                "severity": "critical",
            },
            {
                "id": "pet-activity",
                "kind": "range",
                "parameter": "RadionuclideTotalDose",
                "min": 1.5e8,
                "max": 4.5e8,
                "unit": "Bq",
                "severity": "major",
            },
            {"id": "pet-weight", "kind": "present", "parameter": "PatientWeight", "severity": "critical"},
        ],
    }
