"""Puts the facts of a series' instances together: distinct values, geometry and derived parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sites_app.dicom.catalogue import PARAMETERS
from sites_app.dicom.derived import derive
from sites_app.dicom.geometry import Slice, slice_geometry
from sites_app.dicom.observations import (
    InstanceFacts,
    ObservedValue,
    ParameterObservation,
    SeriesGeometry,
    SeriesObservation,
    Value,
)

EXAMPLE_INSTANCES = 5
MOSAIC_TYPES = frozenset({"MOSAIC", "VFRAME"})


@dataclass(slots=True)
class _Tally:
    """One parameter while its instances are counted."""

    counts: dict[tuple[str, Value], int] = field(default_factory=dict)
    examples: dict[tuple[str, Value], list[str]] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    missing: int = 0
    unparsable: int = 0

    def add(self, value: Value, uid: str, count: int = 1) -> None:
        # True equals 1 and 1 equals 1.0 in Python; the type's name keeps them apart.
        key = (type(value).__name__, value)
        self.counts[key] = self.counts.get(key, 0) + count
        examples = self.examples.setdefault(key, [])
        if len(examples) < EXAMPLE_INSTANCES:
            examples.append(uid)


def aggregate(instances: Iterable[InstanceFacts]) -> SeriesObservation:
    """Return what a whole series says, from the facts of all its instances in any order.

    Values are counted per instance (per frame where they differ inside a multi-frame instance); each distinct
    value names up to five SOP instances in order of their UIDs, so the result does not depend on the order of
    arrival or the number of uploads. An instance given twice counts once.

    Raises ValueError where there is no instance or where they belong to several series.
    """
    unique = {facts.sop_instance_uid: facts for facts in instances}
    ordered = [unique[uid] for uid in sorted(unique)]
    series = {facts.series_instance_uid for facts in ordered}
    if len(series) != 1:
        raise ValueError(f"An observation needs the instances of one series, not of {len(series)}.")
    parameters = _observe(ordered)
    geometry = _geometry(ordered)
    observation = SeriesObservation(
        series_instance_uid=ordered[0].series_instance_uid,
        modality=ordered[0].modality,
        instances=len(ordered),
        frames=sum(facts.frames for facts in ordered),
        parameters=parameters,
        geometry=geometry,
    )
    parameters.update(derive(observation, ordered))
    return observation


def _observe(ordered: Sequence[InstanceFacts]) -> dict[str, ParameterObservation]:
    keywords: dict[str, None] = {}
    for facts in ordered:
        keywords.update(dict.fromkeys(facts.parameters))
        keywords.update(dict.fromkeys(facts.varying))
        keywords.update(dict.fromkeys(facts.unparsable))
    tallies = {keyword: _Tally() for keyword in keywords}
    for facts in ordered:
        for keyword, tally in tallies.items():
            _count(facts, keyword, tally)
    return {keyword: _observation(keyword, tallies[keyword]) for keyword in sorted(tallies)}


def _count(facts: InstanceFacts, keyword: str, tally: _Tally) -> None:
    uid = facts.sop_instance_uid
    if keyword in facts.sources:
        tally.sources[facts.sources[keyword]] = None
    if keyword in facts.parameters:
        tally.add(facts.parameters[keyword], uid)
    elif keyword in facts.varying:
        for value, frames in facts.varying[keyword]:
            if value is None:
                tally.missing += frames
            else:
                tally.add(value, uid, frames)
    elif keyword in facts.unparsable:
        tally.unparsable += 1
    else:
        tally.missing += 1


def _observation(keyword: str, tally: _Tally) -> ParameterObservation:
    definition = PARAMETERS.get(keyword)
    ranked = sorted(tally.counts, key=lambda key: (-tally.counts[key], key[0], str(key[1])))
    values = tuple(ObservedValue(key[1], tally.counts[key], tuple(tally.examples[key])) for key in ranked)
    return ParameterObservation(
        keyword=keyword,
        unit=definition.unit if definition else "",
        source=", ".join(sorted(tally.sources)),
        values=values,
        missing=tally.missing,
        unparsable=tally.unparsable,
    )


def is_mosaic(facts: InstanceFacts) -> bool:
    """True where one classic image holds all slices of a volume as tiles (Siemens MOSAIC, UIH VFRAME)."""
    image_type = facts.parameters.get("ImageType", ())
    parts = image_type if isinstance(image_type, tuple) else (image_type,)
    return "NumberOfImagesInMosaic" in facts.parameters or bool(MOSAIC_TYPES & {str(part) for part in parts})


def _geometry(ordered: Sequence[InstanceFacts]) -> SeriesGeometry:
    frames = sum(facts.frames for facts in ordered)
    if any(is_mosaic(facts) for facts in ordered):
        return SeriesGeometry(
            evaluable=False,
            reason="Each image holds a whole volume as tiles; the positions of single slices are not stated.",
            frames=frames,
            volumes=len(ordered),
        )
    slices = [
        Slice(position, facts.orientation, facts.temporal_position)
        for facts in ordered
        for position in facts.positions
    ]
    return slice_geometry(slices, frames)
