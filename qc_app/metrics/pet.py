"""Metrics of PET: whether SUV can be computed, the activity in the object, recovery of known spheres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qc_app.metrics.mask import find_regions
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import Metric, measured, not_computable

MAX_SAMPLED_SLICES = 64


def metrics(pixels: SeriesPixels) -> list[Metric]:
    """Return all PET metrics; the object is found in at most 64 slices at a constant stride."""
    facts = pixels.pet
    if facts is None:
        return [
            not_computable(name, "the PET header was not read") for name in ("suv_factor", "activity_median")
        ]
    factor = facts.to_suvbw
    result = [measured("suv_factor", factor) if factor else not_computable("suv_factor", facts.reason)]
    median, reason = _object_median(pixels)
    if facts.to_bqml is None:
        why = facts.reason or f"the pixels are in {facts.units}, not in Bq/ml"
        result.append(not_computable("activity_median", why))
    elif median is None:
        result.append(not_computable("activity_median", reason))
    else:
        result.append(measured("activity_median", median * facts.to_bqml))
    if factor is None:
        return [*result, *(not_computable(name, facts.reason) for name in ("suvbw_median", "suvbw_max"))]
    result.append(
        measured("suvbw_median", median * factor)
        if median is not None
        else not_computable("suvbw_median", reason)
    )
    return [*result, measured("suvbw_max", pixels.extremes[1] * factor)]


def _object_median(pixels: SeriesPixels) -> tuple[float | None, str]:
    if pixels.geometry.problem is not None:
        return None, pixels.geometry.problem
    chosen = slice(None, None, -(-pixels.slice_count // MAX_SAMPLED_SLICES))
    volume = pixels.values(0, chosen)
    regions = find_regions(volume, pixels.padded(0, chosen))
    inner = volume[regions.inner]
    if inner.size < 200 or regions.fills_field:
        return None, "no object is visible against a background"
    return float(np.median(inner)), ""


def sphere_recovery(
    pixels: SeriesPixels, *, centre_voxel: Sequence[int], true_value: float
) -> tuple[float | None, str]:
    """Return measured/true activity in the centre voxel of a phantom sphere, or None and why not.

    `centre_voxel` is (slice, row, column); `true_value` is in the units of the rescaled pixels.
    """
    if true_value <= 0:
        return None, "the true activity must be positive"
    centre = np.array(centre_voxel)
    if (centre < 0).any() or (centre >= pixels.shape).any():
        return None, "the centre lies outside the image"
    z, y, x = (int(part) for part in centre)
    value = float(pixels.values(0, slice(z, z + 1))[0, y, x])
    return value / true_value, ""
