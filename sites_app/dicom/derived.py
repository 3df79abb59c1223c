"""Parameters that no single attribute states: computed from several, over all instances of a series."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sites_app.dicom.catalogue import PARAMETERS
from sites_app.dicom.geometry import plane_of
from sites_app.dicom.observations import (
    InstanceFacts,
    ObservedValue,
    ParameterObservation,
    SeriesObservation,
    Value,
)

MINIMUM_ACTIVITY_BQ = 1e5
"""Injected activities below this are taken for MBq written in place of Bq, and not used."""

_EXAMPLES = 5
_SECONDS_PER_MINUTE = 60


def derive(
    observation: SeriesObservation, instances: Sequence[InstanceFacts]
) -> dict[str, ParameterObservation]:
    """Return the derived parameters of a series; one that cannot be computed is missing in all instances."""
    found = {}
    for keyword, (source, compute) in _RULES.items():
        definition = PARAMETERS[keyword]
        if observation.modality not in definition.modalities:
            continue
        value = compute(observation, instances)
        values: tuple[ObservedValue, ...] = ()
        if value is not None:
            uids = tuple(facts.sop_instance_uid for facts in instances[:_EXAMPLES])
            values = (ObservedValue(value, observation.instances, uids),)
        found[keyword] = ParameterObservation(
            keyword, definition.unit, source, values, missing=0 if values else observation.instances
        )
    return found


def _number(observation: SeriesObservation, keyword: str) -> float | None:
    value = observation.value(keyword)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _pixel_spacing(observation: SeriesObservation) -> tuple[float, float] | None:
    value = observation.value("PixelSpacing")
    if isinstance(value, tuple) and len(value) == 2 and all(item > 0 for item in value):
        return float(value[0]), float(value[1])
    return None


def _tiles_per_side(observation: SeriesObservation) -> int | None:
    """Return tiles per side of a mosaic, 1 for ordinary images, None where the tiling is not stated."""
    if "NumberOfImagesInMosaic" not in observation.parameters:
        types = observation.value("ImageType")
        mosaic = isinstance(types, tuple) and bool({"MOSAIC", "VFRAME"} & set(types))
        return None if mosaic else 1
    tiles = _number(observation, "NumberOfImagesInMosaic")
    return math.ceil(math.sqrt(tiles)) if tiles and tiles >= 1 else None


def _matrix(observation: SeriesObservation) -> tuple[int, int] | None:
    rows, columns = _number(observation, "Rows"), _number(observation, "Columns")
    side = _tiles_per_side(observation)
    if not rows or not columns or not side or rows % side or columns % side:
        return None
    return int(rows) // side, int(columns) // side


def _slice_pitch(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    if observation.geometry.evaluable:
        return observation.geometry.pitch_mm
    if (_tiles_per_side(observation) or 0) > 1:
        return _number(observation, "SpacingBetweenSlices")
    return None


def _voxel_size(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    spacing, pitch = _pixel_spacing(observation), _slice_pitch(observation, instances)
    if spacing is None or not isinstance(pitch, float) or pitch <= 0:
        return None
    return (*spacing, pitch)


def _positions(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    if observation.geometry.evaluable:
        return observation.geometry.positions
    tiles = _number(observation, "NumberOfImagesInMosaic")
    return int(tiles) if tiles else None


def _volumes(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    if observation.geometry.evaluable:
        return observation.geometry.volumes
    return observation.frames if "NumberOfImagesInMosaic" in observation.parameters else None


def _missing_slices(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    return observation.geometry.missing_slices if observation.geometry.evaluable else None


def _slab_coverage(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    positions, pitch = _positions(observation, instances), _slice_pitch(observation, instances)
    thickness = _number(observation, "SliceThickness")
    if not isinstance(positions, int) or thickness is None:
        return None
    if positions == 1:
        return thickness
    return round((positions - 1) * pitch + thickness, 6) if isinstance(pitch, float) else None


def _field_of_view(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    spacing, matrix = _pixel_spacing(observation), _matrix(observation)
    if spacing is None or matrix is None:
        return None
    return round(matrix[0] * spacing[0], 6), round(matrix[1] * spacing[1], 6)


def _plane(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    planes = {plane_of(facts.orientation) for facts in instances}
    return planes.pop() or None if len(planes) == 1 else None


def _effective_echo_spacing(
    observation: SeriesObservation, instances: Sequence[InstanceFacts]
) -> Value | None:
    """Return 1 / (bandwidth per pixel along phase encoding x phase-encoding lines of one tile), in s."""
    bandwidth, matrix = _number(observation, "BandwidthPerPixelPhaseEncode"), _matrix(observation)
    direction = observation.value("InPlanePhaseEncodingDirection")
    if not bandwidth or bandwidth <= 0 or matrix is None or direction not in ("ROW", "COL"):
        return None
    return 1 / (bandwidth * matrix[0 if direction == "COL" else 1])


def _uptake_time(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    """Return minutes from injection to the first acquisition, across midnight where only times are known."""
    starts = [moment for facts in instances if (moment := _acquired(facts)) is not None]
    if len(starts) != len(instances):
        return None
    first = min(starts)
    injected = _moment(observation.value("RadiopharmaceuticalStartDateTime"))
    if injected is None:
        clock = observation.value("RadiopharmaceuticalStartTime")
        injected = _moment(f"{first:%Y%m%d}{clock}".replace(":", "")) if isinstance(clock, str) else None
        if injected is not None and injected > first:
            injected -= timedelta(days=1)
    if injected is None or injected > first:
        return None
    return round((first - injected).total_seconds() / _SECONDS_PER_MINUTE, 4)


def _acquired(facts: InstanceFacts) -> datetime | None:
    moment = _moment(facts.parameters.get("AcquisitionDateTime"))
    if moment is not None:
        return moment
    day, clock = facts.parameters.get("AcquisitionDate"), facts.parameters.get("AcquisitionTime")
    if isinstance(day, str) and isinstance(clock, str):
        return _moment(day.replace(".", "") + clock.replace(":", ""))
    return None


def _moment(text: Value | None) -> datetime | None:
    """Read a date and time of DICOM, to the second at least, without its zone."""
    if not isinstance(text, str):
        return None
    plain = text.split("+")[0].split("-")[0]
    try:
        return datetime.strptime(plain, "%Y%m%d%H%M%S.%f" if "." in plain else "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _activity_per_weight(observation: SeriesObservation, instances: Sequence[InstanceFacts]) -> Value | None:
    dose, weight = _number(observation, "RadionuclideTotalDose"), _number(observation, "PatientWeight")
    if dose is None or dose < MINIMUM_ACTIVITY_BQ or not weight or weight <= 0:
        return None
    return round(dose / 1e6 / weight, 6)


_Rule = Callable[[SeriesObservation, Sequence[InstanceFacts]], Value | None]
_POSITIONS_SOURCE = "derived from ImagePositionPatient (0020,0032)"
_RULES: dict[str, tuple[str, _Rule]] = {
    "VoxelSize": ("derived from PixelSpacing (0028,0030) and the slice pitch", _voxel_size),
    "SlicePitch": (_POSITIONS_SOURCE, _slice_pitch),
    "NumberOfPositions": (_POSITIONS_SOURCE, _positions),
    "NumberOfVolumes": (_POSITIONS_SOURCE, _volumes),
    "NumberOfFrames": ("counted", lambda observation, instances: observation.frames),
    "NumberOfInstances": ("counted", lambda observation, instances: observation.instances),
    "MissingSlices": (_POSITIONS_SOURCE, _missing_slices),
    "SlabCoverage": ("derived from the slice pitch and SliceThickness (0018,0050)", _slab_coverage),
    "FieldOfView": ("derived from the matrix and PixelSpacing (0028,0030)", _field_of_view),
    "PlaneOrientation": ("derived from ImageOrientationPatient (0020,0037)", _plane),
    "EffectiveEchoSpacing": ("derived from (0019,xx28) and the matrix", _effective_echo_spacing),
    "UptakeTime": ("derived from acquisition and injection times", _uptake_time),
    "InjectedActivityPerWeight": ("derived from (0018,1074) and (0010,1030)", _activity_per_weight),
}
