"""The part of an MR volume that its metrics are measured on: object, rim and air."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.mask import Regions, Volume, find_regions
from qc_app.metrics.order import median
from qc_app.metrics.pixels import SeriesPixels

MAX_SAMPLED_SLICES = 64
MIN_OBJECT_VOXELS = 200
MIN_BACKGROUND_FRACTION = 0.02
MAX_ZERO_FRACTION = 0.5


@dataclass(frozen=True, eq=False)
class Sample:
    """Every `stride`-th slice of the first volume and its regions; noise does not depend on the stride."""

    volume: Volume
    regions: Regions
    stride: int
    inner: NDArray[np.float32]
    background: NDArray[np.float32]
    background_problem: str | None

    @cached_property
    def inner_mean(self) -> float:
        return float(self.inner.mean(dtype=np.float64))

    @cached_property
    def background_mean(self) -> float:
        return float(self.background.mean(dtype=np.float64))

    @cached_property
    def background_sd(self) -> float:
        return float(self.background.std(dtype=np.float64))

    @cached_property
    def background_median(self) -> float:
        return median(self.background)


def take_sample(pixels: SeriesPixels) -> Sample:
    """Return the sampled slices of the first volume with object and background."""
    stride = -(-pixels.slice_count // MAX_SAMPLED_SLICES)
    chosen = slice(None, None, stride)
    volume = pixels.values(0, chosen)
    regions = find_regions(volume, pixels.padded(0, chosen))
    background = volume[regions.background]
    return Sample(
        volume,
        regions,
        stride,
        volume[regions.inner],
        background,
        _why_no_background(volume, regions, background),
    )


def _why_no_background(volume: Volume, regions: Regions, background: NDArray[np.float32]) -> str | None:
    if regions.fills_field:
        return "the object fills the field of view, so there is no background"
    if background.size < MIN_BACKGROUND_FRACTION * volume.size:
        return "less than 2 % of the voxels are background"
    if np.count_nonzero(background == 0) >= MAX_ZERO_FRACTION * background.size:
        return "at least half of the background is exactly zero (masked by the scanner)"
    return None
