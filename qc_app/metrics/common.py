"""Metrics of every modality: completeness of the stack and clipping."""

from __future__ import annotations

import numpy as np

from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import Metric, measured, not_computable

_COMPLETENESS = (
    "slice_count",
    "missing_slices",
    "duplicate_slices",
    "incomplete_volumes",
    "spacing_irregularity",
)


def completeness(pixels: SeriesPixels) -> list[Metric]:
    """Count slices, gaps, repeated positions and incomplete volumes; not computable without positions."""
    geometry = pixels.geometry
    if geometry.problem is not None:
        return [not_computable(name, geometry.problem) for name in _COMPLETENESS]
    positions = np.array(geometry.positions_mm)
    duplicates = np.flatnonzero(np.isin(positions, geometry.duplicate_mm))
    incomplete = pixels.volume_count - len(pixels.complete_volumes)
    found = [
        measured("slice_count", pixels.slice_count),
        measured("duplicate_slices", len(duplicates), duplicates),
        measured("incomplete_volumes", incomplete, np.flatnonzero((geometry.index < 0).any(axis=0))),
    ]
    if geometry.pitch_mm is None or geometry.irregular is None:
        reason = "a single slice has no pitch, so a gap cannot be recognised"
        return [
            *found,
            not_computable("missing_slices", reason),
            not_computable("spacing_irregularity", reason),
        ]
    gaps = sorted({int(np.searchsorted(positions, missing)) for missing in geometry.missing_mm})
    return [
        *found,
        measured("missing_slices", len(geometry.missing_mm), gaps),
        measured("spacing_irregularity", 100.0 * geometry.irregular),
    ]


def saturation(pixels: SeriesPixels) -> Metric:
    """Return the fraction of voxels at the series maximum; a constant series has no meaningful one."""
    low, high = pixels.extremes
    if high <= low:
        return not_computable("saturated_fraction", "all voxels have the same value")
    stored = pixels.stored
    if pixels.uniform_rescale:
        extreme = stored.max() if pixels.slope[0] > 0 else stored.min()
        return measured("saturated_fraction", np.count_nonzero(stored == extreme) / stored.size)
    per_frame = np.where(pixels.slope > 0, stored.max(axis=(1, 2)), stored.min(axis=(1, 2)))
    real = per_frame * pixels.slope + pixels.intercept
    at_maximum = np.flatnonzero(np.isclose(real, high, rtol=1e-6, atol=0))
    count = sum(int(np.count_nonzero(stored[frame] == per_frame[frame])) for frame in at_maximum)
    return measured("saturated_fraction", count / stored.size)
