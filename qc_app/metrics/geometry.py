"""Where the frames of a series lie: order along the slice normal, completeness, repeated positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.header import FrameFacts

SAME_POSITION_MM = 0.01
ORIENTATION_TOLERANCE = 1e-3
GAP_FACTOR = 1.5
REGULAR_FRACTION = 0.05


@dataclass(frozen=True, eq=False)
class StackGeometry:
    """The frames of a series as a grid of volumes by positions.

    `order` lists the frames sorted by position, then by what tells frames at one position apart. `index`
    (volumes, positions) holds places in that sorted list, -1 where a volume lacks a position.
    `positions_mm` are the projections of Image Position (Patient) on the slice normal, ascending; empty
    when unknown, and then `problem` says why. `missing_mm` and `duplicate_mm` are positions; `irregular` is
    the largest relative departure from the pitch, gaps of whole slices aside.
    """

    order: NDArray[np.intp]
    index: NDArray[np.intp]
    positions_mm: tuple[float, ...]
    pitch_mm: float | None
    missing_mm: tuple[float, ...]
    duplicate_mm: tuple[float, ...]
    irregular: float | None
    problem: str | None


def arrange(frames: Sequence[FrameFacts], problem: str | None = None) -> StackGeometry:
    """Sort frames by position and find volumes, gaps and repeated positions.

    A `problem` that the caller knows of (or one found here) leaves the frames in the order of acquisition.
    """
    problem = problem or _why_no_stack(frames)
    if problem is not None:
        order = np.array(sorted(range(len(frames)), key=lambda i: frames[i].order), dtype=np.intp)
        return StackGeometry(
            order, np.arange(len(frames), dtype=np.intp)[None], (), None, (), (), None, problem
        )
    row, column = np.array(frames[0].orientation).reshape(2, 3)
    projected: NDArray[np.float64] = np.array([frame.position for frame in frames]) @ np.cross(row, column)
    groups = [sorted(group.tolist(), key=lambda i: frames[i].order) for group in _group_positions(projected)]
    order = np.array([frame for group in groups for frame in group], dtype=np.intp)
    starts = np.cumsum([0, *(len(group) for group in groups)])
    counts = np.diff(starts)
    volumes = int(np.bincount(counts).argmax())
    index = np.full((volumes, len(groups)), -1, dtype=np.intp)
    for place, (start, count) in enumerate(zip(starts[:-1], counts, strict=True)):
        kept = min(volumes, int(count))
        index[:kept, place] = np.arange(start, start + kept)
    positions = projected[order[starts[:-1]]]
    pitch, missing, irregular = _spacing(positions)
    duplicates = tuple(float(positions[place]) for place in np.flatnonzero(counts > volumes))
    return StackGeometry(
        order, index, tuple(map(float, positions)), pitch, missing, duplicates, irregular, None
    )


def _why_no_stack(frames: Sequence[FrameFacts]) -> str | None:
    if any(not frame.position or not frame.orientation for frame in frames):
        return "Image Position or Image Orientation (Patient) is missing, so slice positions are unknown"
    reference = np.array(frames[0].orientation)
    orientations = np.array([frame.orientation for frame in frames])
    if np.abs(orientations - reference).max() > ORIENTATION_TOLERANCE:
        return "the slices have several orientations, so they form no single stack"
    if np.linalg.norm(np.cross(reference[:3], reference[3:])) < 0.99:
        return "Image Orientation (Patient) is not a pair of perpendicular unit vectors"
    return None


def _group_positions(projected_mm: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Return the frames at each position, positions ascending."""
    ascending = np.argsort(projected_mm, kind="stable")
    breaks = np.flatnonzero(np.diff(projected_mm[ascending]) > SAME_POSITION_MM) + 1
    return list(np.split(ascending, breaks))


def _spacing(positions: NDArray[np.float64]) -> tuple[float | None, tuple[float, ...], float | None]:
    """Return pitch, the positions of absent slices and the largest relative irregularity."""
    if len(positions) < 2:
        return None, (), None
    steps = np.diff(positions)
    pitch = float(np.median(steps))
    multiples = np.maximum(np.rint(steps / pitch), 1)
    irregular = float(np.abs(steps / pitch / multiples - 1).max())
    missing = [
        float(start + pitch * (k + 1))
        for start, step, multiple in zip(positions[:-1], steps, multiples, strict=True)
        if step > GAP_FACTOR * pitch
        for k in range(min(int(multiple) - 1, 1000))
    ]
    return pitch, tuple(missing), irregular
