"""Slice geometry of a series along the normal of its image plane (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sites_app.dicom.observations import SeriesGeometry

SAME_POSITION_MM = 0.01
IRREGULAR_RELATIVE = 0.01
IRREGULAR_MM = 0.01
MULTIPLE_TOLERANCE = 0.1
SHARED_PLACES = 0.25
UNIT_NORMAL_TOLERANCE = 0.01
OBLIQUE_COSINE = math.cos(math.radians(45))
_ORIENTATION_COMPONENTS = 6
_PLANES = ("SAGITTAL", "CORONAL", "AXIAL")

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame's place: ImagePositionPatient (mm), ImageOrientationPatient, and what tells its volume."""

    position: Vector
    orientation: Vector
    volume: str = ""


def normal_of(orientation: Vector) -> Vector | None:
    """Return the unit normal of an image plane, None where the orientation is no pair of unit vectors."""
    if len(orientation) != _ORIENTATION_COMPONENTS:
        return None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    size = math.sqrt(sum(component * component for component in normal))
    if abs(size - 1) > UNIT_NORMAL_TOLERANCE:
        return None
    return tuple(component / size for component in normal)


def plane_of(orientation: Vector) -> str:
    """Return AXIAL, CORONAL or SAGITTAL after the normal's largest component, "" where it is not evaluable."""
    normal = normal_of(orientation)
    if normal is None:
        return ""
    return _PLANES[max(range(3), key=lambda axis: abs(normal[axis]))]


def slice_geometry(slices: Sequence[Slice], expected_frames: int) -> SeriesGeometry:
    """Return the geometry of a series from the places of its frames.

    `expected_frames` is the number of frames received; where fewer have a place, or orientations differ, the
    geometry is not evaluable and `reason` says why. Several frames at one position are volumes (time points,
    echoes, directions) where each position has the same number of them; else the surplus are duplicates or the
    deficit are missing slices.
    """
    if not slices or len(slices) != expected_frames:
        without = expected_frames - len(slices)
        return _not_evaluable(expected_frames, f"{without} of {expected_frames} frames have no position.")
    directions = _distinct_orientations(slices)
    if directions is None:
        return _not_evaluable(
            expected_frames, "ImageOrientationPatient is missing or is no pair of unit vectors."
        )
    if len(directions) > 1:
        return _not_evaluable(
            expected_frames,
            f"The series holds {len(directions)} slice orientations.",
            orientations=len(directions),
        )
    normal = directions[0]
    along = [sum(n * p for n, p in zip(normal, item.position, strict=True)) for item in slices]
    groups = _group(along)
    return _from_groups(groups, along, slices)


def _not_evaluable(frames: int, reason: str, orientations: int = 1) -> SeriesGeometry:
    return SeriesGeometry(evaluable=False, reason=reason, frames=frames, orientations=orientations)


def _distinct_orientations(slices: Sequence[Slice]) -> list[Vector] | None:
    found: list[Vector] = []
    for orientation in dict.fromkeys(item.orientation for item in slices):
        normal = normal_of(orientation)
        if normal is None:
            return None
        if not any(sum(a * b for a, b in zip(normal, other, strict=True)) > 1 - 1e-4 for other in found):
            found.append(normal)
    return found


def _group(along: Sequence[float]) -> list[tuple[float, list[int]]]:
    """Group frames at one place along the normal; return (place in mm, frame indices) in order."""
    groups: list[tuple[float, list[int]]] = []
    for index in sorted(range(len(along)), key=along.__getitem__):
        if groups and along[index] - groups[-1][0] <= SAME_POSITION_MM:
            groups[-1][1].append(index)
        else:
            groups.append((along[index], [index]))
    return groups


def _from_groups(
    groups: list[tuple[float, list[int]]], along: Sequence[float], slices: Sequence[Slice]
) -> SeriesGeometry:
    places = [place for place, _ in groups]
    spacings = [after - before for before, after in zip(places, places[1:], strict=False)]
    pitch = _pitch(spacings)
    gaps, missing, irregular = _gaps(spacings, pitch)
    volumes, incomplete, duplicates = _volumes(groups, slices)
    return SeriesGeometry(
        evaluable=True,
        positions=len(groups),
        frames=len(slices),
        pitch_mm=None if pitch is None else round(pitch, 6),
        gaps=tuple(gaps),
        missing_slices=missing * volumes + incomplete,
        duplicates=duplicates,
        irregular=irregular,
        orientations=1,
        volumes=volumes,
    )


def _pitch(spacings: Sequence[float]) -> float | None:
    """Return the commonest spacing (median of the largest cluster), None for a single position."""
    if not spacings:
        return None
    ordered = sorted(spacings)
    best: list[float] = []
    start = 0
    for stop, size in enumerate(ordered):
        while size - ordered[start] > max(IRREGULAR_MM, IRREGULAR_RELATIVE * size):
            start += 1
        if stop - start + 1 > len(best):
            best = ordered[start : stop + 1]
    return best[len(best) // 2]


def _gaps(spacings: Sequence[float], pitch: float | None) -> tuple[list[tuple[int, float]], int, bool]:
    """Return gaps (index of the position before, spacing), slices missing in them, and irregularity."""
    gaps: list[tuple[int, float]] = []
    missing, irregular = 0, False
    if pitch is None:
        return gaps, missing, irregular
    for index, spacing in enumerate(spacings):
        if abs(spacing - pitch) <= max(IRREGULAR_MM, IRREGULAR_RELATIVE * pitch):
            continue
        steps = spacing / pitch
        whole = round(steps)
        if whole >= 2 and abs(steps - whole) <= MULTIPLE_TOLERANCE:
            gaps.append((index, round(spacing, 4)))
            missing += whole - 1
        else:
            irregular = True
            if spacing > pitch:
                gaps.append((index, round(spacing, 4)))
    return gaps, missing, irregular


def _volumes(groups: list[tuple[float, list[int]]], slices: Sequence[Slice]) -> tuple[int, int, int]:
    """Return (volumes, slices missing in some volume, duplicate slices).

    Frames of equal place are told apart by their volume label where labels are distinct at some place; where
    they have none, the commonest number of frames per place counts as the number of volumes.
    """
    sizes = Counter(len(indices) for _, indices in groups)
    labelled = all(slices[index].volume for _, indices in groups for index in indices)
    if labelled:
        repeats = [Counter(slices[index].volume for index in indices) for _, indices in groups]
        depth = Counter(count for repeat in repeats for count in repeat.values()).most_common(1)[0][0]
        labels = {label for repeat in repeats for label in repeat}
        volumes = len(labels) * depth
        # Labels that part a stack into slabs (CT acquisitions) share no places; labels of volumes do.
        complete = sum(len(repeat) == len(labels) for repeat in repeats)
        if complete >= SHARED_PLACES * len(repeats):
            missing = sum(max(0, depth - repeat[label]) for repeat in repeats for label in labels)
            surplus = sum(max(0, repeat[label] - depth) for repeat in repeats for label in labels)
            return volumes, missing, surplus
    common = max(sizes, key=lambda size: (sizes[size], size))
    missing = sum((common - size) * count for size, count in sizes.items() if size < common)
    surplus = sum((size - common) * count for size, count in sizes.items() if size > common)
    return common, missing, surplus
