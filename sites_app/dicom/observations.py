"""What was read from instances and series: the values that travel from receipt to judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Value = str | int | float | bool | tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """One de-identified instance: mapped UIDs, how it is encoded, and its acquisition parameters.

    `parameters` maps a catalogue keyword to its value in the catalogue's unit; an absent keyword was not
    in the file. `unparsable` names the keywords whose value could not be read as their kind.
    `positions` holds ImagePositionPatient (mm) of each frame, `orientation` ImageOrientationPatient of the
    first frame (PS3.3 C.7.6.2); both empty where the file has none. `varying` holds, for a keyword whose value
    differs between the frames of a multi-frame instance, (value, number of frames) pairs, most frequent first;
    None stands for frames without the value. Such a keyword is not in `parameters`.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    transfer_syntax_uid: str
    instance_number: int | None
    rows: int | None
    columns: int | None
    frames: int
    parameters: Mapping[str, Value]
    sources: Mapping[str, str] = field(default_factory=dict)
    unparsable: tuple[str, ...] = ()
    positions: tuple[tuple[float, float, float], ...] = ()
    orientation: tuple[float, ...] = ()
    temporal_position: str = ""
    varying: Mapping[str, tuple[tuple[Value | None, int], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObservedValue:
    """One distinct value in a series, with how many instances have it and up to five of their SOP UIDs."""

    value: Value
    count: int
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParameterObservation:
    """All values of one parameter over the instances of a series, most frequent first."""

    keyword: str
    unit: str
    source: str
    values: tuple[ObservedValue, ...]
    missing: int = 0
    unparsable: int = 0


@dataclass(frozen=True, slots=True)
class SeriesGeometry:
    """Slice geometry along the normal of the image plane (mm); `evaluable` is false where positions lack.

    `gaps` lists (position index after which it occurs, spacing in mm); `irregular` is true where spacings
    differ by more than 1 % and 0.01 mm without being a multiple of the pitch.
    """

    evaluable: bool
    reason: str = ""
    positions: int = 0
    frames: int = 0
    pitch_mm: float | None = None
    gaps: tuple[tuple[int, float], ...] = ()
    missing_slices: int = 0
    duplicates: int = 0
    irregular: bool = False
    orientations: int = 1
    volumes: int = 1


@dataclass(frozen=True, slots=True)
class SeriesObservation:
    """A whole received series: counts, geometry and every parameter's values."""

    series_instance_uid: str
    modality: str
    instances: int
    frames: int
    parameters: Mapping[str, ParameterObservation]
    geometry: SeriesGeometry

    def value(self, keyword: str) -> Value | None:
        """Return the parameter's only value, or None where it is missing, unparsable or varies."""
        observation = self.parameters.get(keyword)
        if observation is None or observation.missing or observation.unparsable:
            return None
        return observation.values[0].value if len(observation.values) == 1 else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SeriesObservation:
        geometry = dict(data["geometry"])
        geometry["gaps"] = tuple((int(index), float(size)) for index, size in geometry.get("gaps", ()))
        return cls(
            series_instance_uid=data["series_instance_uid"],
            modality=data["modality"],
            instances=data["instances"],
            frames=data["frames"],
            parameters={key: _parameter(item) for key, item in data["parameters"].items()},
            geometry=SeriesGeometry(**geometry),
        )


def _parameter(data: Mapping[str, Any]) -> ParameterObservation:
    values = tuple(
        ObservedValue(_value(item["value"]), item["count"], tuple(item["instances"]))
        for item in data["values"]
    )
    return ParameterObservation(
        keyword=data["keyword"],
        unit=data["unit"],
        source=data["source"],
        values=values,
        missing=data["missing"],
        unparsable=data["unparsable"],
    )


def _value(value: Any) -> Value:
    return tuple(_value(item) for item in value) if isinstance(value, list) else value
