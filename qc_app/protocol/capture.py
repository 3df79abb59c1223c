"""Draft rules from a reference series: what a site has acquired well becomes what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from qc_app.protocol.model import CatalogueEntry
from qc_app.protocol.values import is_empty, is_number, is_readable, items, same
from sites_app.dicom.catalogue import PARAMETERS
from sites_app.dicom.observations import ParameterObservation, SeriesObservation

_Make = Callable[[Any], dict[str, Any]]

MAX_DISTINCT = 8
"""A parameter with more values inside one series than this is drafted as a range, or not at all."""


def _absolute(tolerance: float) -> _Make:
    return lambda value: {"kind": "tolerance_absolute", "value": value, "tolerance": tolerance}


def _relative(percent: float) -> _Make:
    return lambda value: {"kind": "tolerance_relative", "value": value, "tolerance_percent": percent}


def _share(share: float, least: float) -> _Make:
    return lambda value: {
        "kind": "tolerance_absolute",
        "value": value,
        "tolerance": max(least, round(abs(value) * share, 3)),
    }


def _elements(tolerance: float) -> _Make:
    return lambda value: {"kind": "vector", "value": list(items(value)), "tolerance": tolerance}


def _exact(value: Any) -> dict[str, Any]:
    return {"kind": "equals", "value": list(value) if isinstance(value, tuple | list) else value}


_DRAFTS: dict[str, tuple[_Make, str, bool]] = {
    "MagneticFieldStrength": (_absolute(0.1), "critical", False),
    "MRAcquisitionType": (_exact, "major", False),
    "ScanningSequence": (_exact, "major", True),
    "SequenceVariant": (_exact, "minor", True),
    "RepetitionTime": (_share(0.005, 0.1), "major", True),
    "EchoTime": (_share(0.02, 0.1), "major", True),
    "InversionTime": (_absolute(5), "major", True),
    "FlipAngle": (_absolute(1), "major", True),
    "EchoTrainLength": (_exact, "minor", True),
    "NumberOfAverages": (_exact, "minor", False),
    "PixelBandwidth": (_relative(2), "minor", True),
    "InPlanePhaseEncodingDirection": (_exact, "major", False),
    "ParallelReductionFactorInPlane": (_absolute(0.05), "minor", True),
    "PartialFourier": (_exact, "minor", True),
    "EffectiveEchoSpacing": (_relative(2), "minor", True),
    "DiffusionBValue": (_absolute(50), "critical", False),
    "AcquisitionMatrix": (_exact, "major", True),
    "Rows": (_exact, "major", False),
    "Columns": (_exact, "major", False),
    "VoxelSize": (_elements(0.05), "critical", False),
    "PixelSpacing": (_elements(0.01), "major", False),
    "SliceThickness": (_absolute(0.05), "critical", False),
    "SlicePitch": (_absolute(0.05), "critical", False),
    "FieldOfView": (_elements(1), "major", False),
    "PlaneOrientation": (_exact, "major", False),
    "PatientPosition": (_exact, "minor", False),
    "KVP": (_exact, "critical", False),
    "ConvolutionKernel": (_exact, "critical", True),
    "SpiralPitchFactor": (_absolute(0.05), "minor", True),
    "RevolutionTime": (_absolute(0.05), "minor", True),
    "TotalCollimationWidth": (_absolute(0.1), "minor", True),
    "GantryDetectorTilt": (_absolute(0.5), "major", False),
    "ReconstructionDiameter": (_relative(10), "minor", False),
    "Exposure": (_relative(10), "minor", True),
    "Units": (_exact, "critical", False),
    "DecayCorrection": (_exact, "critical", False),
    "CorrectedImage": (_exact, "critical", False),
    "ReconstructionMethod": (_exact, "major", True),
    "ActualFrameDuration": (_relative(5), "major", False),
    "RadionuclideHalfLife": (_absolute(1), "critical", False),
}
"""How each parameter is drafted, its severity, and whether the value means something on one vendor only."""

_RECOGNISE = ("MRAcquisitionType", "ScanningSequence", "Units", "SeriesType")


def capture(
    observation: SeriesObservation, catalogue: Mapping[str, CatalogueEntry] | None = None
) -> tuple[dict[str, Any], ...]:
    """Return draft rules (protocol JSON) which this series complies with; a person revises and locks them.

    Values that mean something on one vendor only get `applies_to` the series' manufacturer. Values missing or
    unreadable in any instance give no rule: an expectation is never made up.
    """
    entries: Mapping[str, CatalogueEntry] = PARAMETERS if catalogue is None else catalogue
    manufacturer = observation.value("Manufacturer")
    rules = []
    for keyword, (make, severity, by_vendor) in _DRAFTS.items():
        found = observation.parameters.get(keyword)
        entry = entries.get(keyword)
        if found is None or entry is None or found.unit != entry.unit or not _complete(found):
            continue
        test = _draft(found, make)
        if test is None:
            continue
        rule = {
            "id": _rule_id(keyword),
            "parameter": keyword,
            "unit": entry.unit,
            "severity": severity,
            **test,
        }
        if by_vendor and isinstance(manufacturer, str) and manufacturer.strip():
            rule["applies_to"] = {"manufacturer": [manufacturer]}
        rules.append(rule)
    return (*rules, *_counts(observation))


def capture_series(
    observation: SeriesObservation,
    key: str,
    title: str,
    catalogue: Mapping[str, CatalogueEntry] | None = None,
) -> dict[str, Any]:
    """Return a draft expected series (protocol JSON) with its rules and conditions which this series meets.

    The conditions recognise only the kind of acquisition; where a visit has several series of that kind, the
    author adds what tells them apart.
    """
    entries: Mapping[str, CatalogueEntry] = PARAMETERS if catalogue is None else catalogue
    match = []
    for keyword in _RECOGNISE:
        value = observation.value(keyword)
        if value is not None and not is_empty(value) and keyword in entries:
            match.append({"parameter": keyword, **_exact(value)})
    return {
        "key": key,
        "title": title,
        "modality": observation.modality,
        "match": match,
        "rules": list(capture(observation, catalogue)),
        "completeness": {"require_geometry": observation.geometry.evaluable},
    }


def _rule_id(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", keyword).lower()


def _complete(found: ParameterObservation) -> bool:
    readable = all(is_readable(item.value) and not is_empty(item.value) for item in found.values)
    return bool(found.values) and not found.missing and not found.unparsable and readable


def _draft(found: ParameterObservation, make: _Make) -> dict[str, Any] | None:
    values = [item.value for item in found.values]
    if all(same(found.keyword, values[0], value) for value in values[1:]):
        return _one_value(make, values[0])
    if all(is_number(value) for value in values):
        return _several_numbers(values)
    if all(isinstance(value, str) for value in values) and len(values) <= MAX_DISTINCT:
        return {"kind": "one_of", "values": sorted(values, key=str), "allow_varying": True}
    return None


def _one_value(make: _Make, value: Any) -> dict[str, Any] | None:
    try:
        test = make(value)
    except TypeError:
        return None
    scalar = test["kind"] in ("tolerance_absolute", "tolerance_relative")
    if scalar and not is_number(value):
        return None
    if test["kind"] == "vector" and not all(is_number(item) for item in items(value)):
        return None
    return None if test["kind"] == "tolerance_relative" and value == 0 else test


def _several_numbers(values: list[Any]) -> dict[str, Any]:
    if len(values) <= MAX_DISTINCT:
        return {"kind": "one_of", "values": sorted(values), "allow_varying": True}
    return {"kind": "range", "min": min(values), "max": max(values), "allow_varying": True}


def _counts(observation: SeriesObservation) -> list[dict[str, Any]]:
    geometry = observation.geometry
    if not geometry.evaluable or geometry.positions < 1:
        number = observation.instances
        counts = {"instances": number} if number > 0 else {}
    else:
        counts = {"positions": geometry.positions, "volumes": geometry.volumes}
    return [
        {"id": f"count-{of}", "kind": "count", "of": of, "min": number, "max": number, "severity": "major"}
        for of, number in counts.items()
    ]
