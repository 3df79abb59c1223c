"""Slices that lost signal, judged inside the object that their neighbours show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.mask import Mask
from qc_app.metrics.order import median
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import Metric, measured, not_computable

NEIGHBOURS = 2
WINDOW = 7
THRESHOLD = 0.85
MIN_VOXELS = 50
MIN_SLICES = 7
THIN_ABOVE_PX = 160


def dropout(pixels: SeriesPixels, foreground: Mask, stride: int) -> Metric:
    """Count slices whose median is below 0.85 of the 7-slice median.

    `foreground` is the object in every `stride`-th slice. A slice is measured where both the object two
    sampled slices before it and that two after it reach: a dropped slice falls out of its own mask, and
    beyond the object's ends there is no signal to lose. Large matrices are read at every second row and
    column.
    """
    if pixels.slice_count < MIN_SLICES:
        return not_computable("dropout_slices", f"fewer than {MIN_SLICES} slices")
    thin = 2 if min(pixels.shape[1:]) >= THIN_ABOVE_PX else 1
    medians = _medians(pixels, foreground[:, ::thin, ::thin], stride, thin)
    if np.count_nonzero(np.isfinite(medians)) < MIN_SLICES:
        return not_computable("dropout_slices", f"the object spans fewer than {MIN_SLICES} slices")
    found = []
    for place in np.flatnonzero(np.isfinite(medians)):
        window = medians[max(0, place - WINDOW // 2) : place + WINDOW // 2 + 1]
        reference = float(np.nanmedian(window))
        if reference > 0 and medians[place] < THRESHOLD * reference:
            found.append(int(place))
    return measured("dropout_slices", len(found), found)


def _medians(pixels: SeriesPixels, foreground: Mask, stride: int, thin: int) -> NDArray[np.float64]:
    medians = np.full(pixels.slice_count, np.nan)
    sampled = np.arange(foreground.shape[0]) * stride
    for place in range(pixels.slice_count):
        before = np.flatnonzero(sampled < place)[-NEIGHBOURS:]
        after = np.flatnonzero(sampled > place)[:NEIGHBOURS]
        inside = foreground[before].any(axis=0) & foreground[after].any(axis=0)
        values = pixels.values(0, slice(place, place + 1))[0, ::thin, ::thin][inside]
        if values.size >= MIN_VOXELS:
            medians[place] = median(values)
    return medians
