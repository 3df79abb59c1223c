"""Metrics of CT: the Hounsfield scale, noise and uniformity of a cylinder, noise in soft tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qc_app.metrics.mask import Mask, Volume, erode, find_regions
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import Metric, measured, not_computable

MAX_SAMPLED_SLICES = 32
IMPOSSIBLE_HU = -1500.0
SUSPECT_P1_HU = -500.0
MIN_AIR_FRACTION = 0.02
ROI_RADIUS = 0.2
EDGE_DISTANCE = 0.8
MAX_UNIFORM_SD_HU = 60.0
MAX_UNIFORM_STEP_HU = 60.0
MAX_SLICE_SPREAD_HU = 20.0
MIN_CIRCULARITY = 0.97
SOFT_TISSUE_HU = (-100.0, 200.0)
LOCAL_PX = 7
MIN_LOCAL = 500

_NAMES = ("air_hu", "hu_scale_suspect", "water_hu", "noise_hu", "uniformity_hu", "noise_global_hu")


@dataclass(frozen=True, slots=True)
class _SliceRois:
    """Mean and sd of the central region and means of the four outer regions of one slice (HU)."""

    centre: float
    sd: float
    edges: tuple[float, ...]


def metrics(pixels: SeriesPixels) -> list[Metric]:
    """Return all CT metrics; stacks above 32 slices are sampled at a constant slice stride."""
    if pixels.geometry.problem is not None:
        return [not_computable(name, pixels.geometry.problem) for name in _NAMES]
    chosen = slice(None, None, -(-pixels.slice_count // MAX_SAMPLED_SLICES))
    volume = pixels.values(0, chosen)
    outside = volume <= IMPOSSIBLE_HU
    padded = pixels.padded(0, chosen)
    if padded is not None:
        outside |= padded
    if outside.all():
        return [not_computable(name, "all pixels are padding") for name in _NAMES]
    suspect = float(np.percentile(volume[~outside], 1)) > SUSPECT_P1_HU
    regions = find_regions(volume, outside)
    return [
        measured("hu_scale_suspect", float(suspect)),
        _air(volume, regions.background),
        *_cylinder(volume, regions.foreground),
        _global_noise(volume, regions.inner, suspect),
    ]


def _air(volume: Volume, background: Mask) -> Metric:
    air = volume[background]
    if air.size < MIN_AIR_FRACTION * volume.size:
        return not_computable("air_hu", "less than 2 % of the pixels lie outside the body")
    return measured("air_hu", float(np.median(air)))


def _cylinder(volume: Volume, foreground: Mask) -> list[Metric]:
    """Water value, noise and uniformity, in slices that show one uniform disc."""
    names = ("water_hu", "noise_hu", "uniformity_hu")
    slices = [
        rois for z in range(volume.shape[0]) if (rois := _measure_slice(volume[z], foreground[z])) is not None
    ]
    if not slices:
        return [not_computable(name, "no slice shows a uniform cylinder (a water phantom)") for name in names]
    centres = [rois.centre for rois in slices]
    spread = max(centres) - min(centres)
    if spread > MAX_SLICE_SPREAD_HU:
        reason = (
            f"the centres of the uniform slices differ by {spread:.0f} HU: a phantom of several materials"
        )
        water = not_computable(names[0], reason)
    else:
        water = measured(names[0], float(np.mean(centres)))
    return [
        water,
        measured(names[1], float(np.median([rois.sd for rois in slices]))),
        measured(names[2], float(np.mean([rois.centre - np.mean(rois.edges) for rois in slices]))),
    ]


def _measure_slice(image: NDArray[np.float32], mask: Mask) -> _SliceRois | None:
    """Return the regions of one slice, or None when it does not show one uniform disc."""
    area = int(np.count_nonzero(mask))
    if area < 1000:
        return None
    rows, columns = np.nonzero(mask)
    centre_row, centre_column = float(rows.mean()), float(columns.mean())
    radius = math.sqrt(area / math.pi)
    distance = np.hypot(
        np.arange(image.shape[0])[:, None] - centre_row, np.arange(image.shape[1])[None, :] - centre_column
    )
    if np.count_nonzero(mask & (distance <= radius + 1)) < MIN_CIRCULARITY * area:
        return None
    solid = erode(mask[None], 2)[0]
    centre = image[(distance <= ROI_RADIUS * radius) & solid]
    edges = []
    for row, column in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        away = np.hypot(
            np.arange(image.shape[0])[:, None] - centre_row - row * EDGE_DISTANCE * radius,
            np.arange(image.shape[1])[None, :] - centre_column - column * EDGE_DISTANCE * radius,
        )
        edges.append(image[(away <= ROI_RADIUS * radius) & solid])
    if min(region.size for region in (centre, *edges)) < 20:
        return None
    means = tuple(float(region.mean(dtype=np.float64)) for region in edges)
    found = _SliceRois(float(centre.mean(dtype=np.float64)), float(centre.std(dtype=np.float64)), means)
    spread = max(abs(mean - found.centre) for mean in means)
    return found if found.sd <= MAX_UNIFORM_SD_HU and spread <= MAX_UNIFORM_STEP_HU else None


def _global_noise(volume: Volume, inner: Mask, suspect: bool) -> Metric:
    """Return the mode of local standard deviations in soft tissue (Christianson 2015), 7 x 7 windows."""
    name = "noise_global_hu"
    if suspect:
        return not_computable(name, "the values are not on the Hounsfield scale")
    kept = []
    for z in range(volume.shape[0]):
        image = volume[z].astype(np.float64)
        mean = ndimage.uniform_filter(image, LOCAL_PX)
        variance = ndimage.uniform_filter(np.square(image), LOCAL_PX) - np.square(mean)
        soft = (
            (mean > SOFT_TISSUE_HU[0]) & (mean < SOFT_TISSUE_HU[1]) & erode(inner[z][None], LOCAL_PX // 2)[0]
        )
        size = LOCAL_PX * LOCAL_PX
        kept.append(np.sqrt(np.maximum(variance[soft], 0) * size / (size - 1)))
    local = np.concatenate(kept)
    if local.size < MIN_LOCAL:
        return not_computable(name, "too little soft tissue in the image")
    counts, edges = np.histogram(local, bins=np.arange(0.0, 150.25, 0.25))
    smooth = np.convolve(counts, np.ones(5), mode="same")
    peak = int(np.argmax(smooth))
    return measured(name, float(edges[peak] + 0.125))
