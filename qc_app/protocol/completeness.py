"""Whether a received series is whole: gaps, spacing, repeated positions, one orientation."""

from __future__ import annotations

from typing import Any

from qc_app.protocol.model import COMPLIANT, DEVIANT, NOT_EVALUABLE, Completeness, Verdict
from qc_app.protocol.values import format_value
from sites_app.dicom.observations import SeriesGeometry, SeriesObservation

SOURCE = "(0020,0032) (0020,0037)"
"""ImagePositionPatient and ImageOrientationPatient, PS3.3 C.7.6.2."""

MAX_GAPS_NAMED = 5
_RESEND = "Send all images of the series. If the scanner has no more, repeat the series or ask for a waiver."


def judge_completeness(completeness: Completeness, observation: SeriesObservation) -> tuple[Verdict, ...]:
    """Return the verdicts on slice geometry, in mm along the normal of the image plane.

    Slices missing at either end leave no gap; a `count` rule on positions finds those.
    """
    geometry = observation.geometry
    judged: list[Verdict | None]
    if not geometry.evaluable:
        judged = [
            _not_evaluable(completeness, geometry) if completeness.require_geometry else None,
            _orientations(completeness, geometry) if geometry.orientations > 1 else None,
        ]
        return tuple(verdict for verdict in judged if verdict is not None)
    judged = [
        _gaps(completeness, geometry),
        _spacing(completeness, geometry),
        _duplicates(completeness, geometry),
        _orientations(completeness, geometry),
    ]
    return tuple(verdict for verdict in judged if verdict is not None)


def _verdict(
    completeness: Completeness,
    name: str,
    label: str,
    expected: dict[str, Any],
    observed: Any,
    outcome: str,
    detail: str,
    action: str = "",
    unit: str = "",
) -> Verdict:
    return Verdict(
        rule=f"completeness.{name}",
        parameter=_PARAMETERS[name],
        label=label,
        expected={"kind": "completeness", **expected},
        observed=observed,
        unit=unit,
        source=SOURCE,
        outcome=outcome,
        severity=completeness.severity,
        detail=detail,
        action=action if outcome != COMPLIANT else "",
    )


_PARAMETERS = {
    "geometry": "SliceGeometry",
    "gaps": "MissingSlices",
    "spacing": "SlicePitch",
    "duplicates": "DuplicatePositions",
    "orientation": "SliceOrientations",
}


def _not_evaluable(completeness: Completeness, geometry: SeriesGeometry) -> Verdict:
    reason = geometry.reason.rstrip(".") or "the images record no position in space"
    return _verdict(
        completeness,
        "geometry",
        "Slice geometry",
        {"value": True, "text": "positions from which missing slices can be seen"},
        None,
        NOT_EVALUABLE,
        f"It cannot be checked whether slices are missing: {reason}.",
        "Export the original images again with their position and orientation, and send them.",
    )


def _gaps(completeness: Completeness, geometry: SeriesGeometry) -> Verdict | None:
    if completeness.allow_gaps:
        return None
    expected = {"value": 0, "text": "no missing slices"}
    missing = max(geometry.missing_slices, len(geometry.gaps))
    if not missing:
        detail = f"No slice is missing among {geometry.positions} positions."
        return _verdict(completeness, "gaps", "Missing slices", expected, 0, COMPLIANT, detail)
    pitch = format_value(geometry.pitch_mm, "mm")
    named = [f"after position {index + 1} ({format_value(size, 'mm')})" for index, size in geometry.gaps]
    where = ", ".join(named[:MAX_GAPS_NAMED]) or "in some of the volumes"
    if len(named) > MAX_GAPS_NAMED:
        where += f" and {len(named) - MAX_GAPS_NAMED} more gaps"
    detail = f"{_slices(missing)} missing {where}; neighbouring slices are {pitch} apart elsewhere."
    return _verdict(
        completeness, "gaps", "Missing slices", expected, missing, DEVIANT, " ".join(detail.split()), _RESEND
    )


def _slices(number: int) -> str:
    return "1 slice is" if number == 1 else f"{number} slices are"


def _spacing(completeness: Completeness, geometry: SeriesGeometry) -> Verdict | None:
    if completeness.allow_irregular_spacing:
        return None
    expected = {"value": True, "text": "equal spacing between slices"}
    name, label = "spacing", "Slice spacing"
    if geometry.irregular:
        detail = "The distances between neighbouring slices differ and are no multiples of one spacing."
        action = (
            "Check that the series was not mixed from several scans; send the original series or repeat it."
        )
        return _verdict(completeness, name, label, expected, False, DEVIANT, detail, action)
    if geometry.pitch_mm is None:
        detail = (
            f"The series has {geometry.positions} slice position, which has no neighbour to measure from."
        )
    else:
        detail = f"Neighbouring slices are {format_value(geometry.pitch_mm, 'mm')} apart."
    if geometry.pitch_mm is None and geometry.positions > 1:
        detail = "The distance between neighbouring slices could not be measured."
        return _verdict(completeness, name, label, expected, None, NOT_EVALUABLE, detail, _RESEND)
    return _verdict(completeness, name, label, expected, True, COMPLIANT, detail)


def _duplicates(completeness: Completeness, geometry: SeriesGeometry) -> Verdict | None:
    if completeness.allow_duplicate_positions:
        return None
    expected = {"value": 0, "text": "no position twice"}
    name, label, number = "duplicates", "Repeated slice positions", geometry.duplicates
    if not number:
        detail = "No slice position occurs twice."
        return _verdict(completeness, name, label, expected, 0, COMPLIANT, detail)
    detail = f"{number} images lie at a position that another image of the series already has."
    action = (
        "Send each series as the scanner made it, without adding images of other series or earlier exports."
    )
    return _verdict(completeness, name, label, expected, number, DEVIANT, detail, action)


def _orientations(completeness: Completeness, geometry: SeriesGeometry) -> Verdict | None:
    if completeness.allow_several_orientations:
        return None
    expected = {"value": 1, "text": "one orientation"}
    name, label, number = "orientation", "Slice orientations", geometry.orientations
    if number == 1:
        detail = "All slices are parallel."
        return _verdict(completeness, name, label, expected, 1, COMPLIANT, detail)
    detail = f"The slices of the series lie in {number} different orientations."
    action = "Send each orientation as a series of its own, or repeat the series with parallel slices."
    return _verdict(completeness, name, label, expected, number, DEVIANT, detail, action)
