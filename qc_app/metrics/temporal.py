"""Stability of a time series of MR volumes (functional MRI, phantom stability runs)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.mask import find_regions
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import Metric, measured, not_computable

MIN_VOLUMES = 20
ROI_PX = 15
MAX_SAMPLES = 8_000_000
NAMES = ("tsnr", "sfnr", "temporal_drift", "temporal_fluctuation", "rdc", "dvars")


def metrics(pixels: SeriesPixels) -> list[Metric]:
    """Return the temporal metrics; they need at least 20 complete volumes of one contrast.

    Voxels are thinned at a constant stride so that voxels x volumes stays below 8 million.
    """
    reason = _why_not(pixels)
    if reason is not None:
        return [not_computable(name, reason) for name in NAMES]
    places = np.flatnonzero(find_regions(pixels.values(0), pixels.padded(0)).inner)
    if places.size == 0:
        return [not_computable(name, "no object was found") for name in NAMES]
    places = places[:: -(-places.size * len(pixels.complete_volumes) // MAX_SAMPLES)]
    series = np.stack([pixels.values(v).ravel()[places] for v in pixels.complete_volumes])
    return [*_voxelwise(series), *_roi(pixels)]


def _why_not(pixels: SeriesPixels) -> str | None:
    if pixels.geometry.problem is not None:
        return pixels.geometry.problem
    if len(pixels.complete_volumes) < MIN_VOLUMES:
        return f"fewer than {MIN_VOLUMES} complete volumes over time"
    contrasts = {(frame.echo_time_ms, frame.b_value) for frame in pixels.frames}
    if len(contrasts) > 1:
        return "the volumes differ in echo time or b-value, so they are no time series of one contrast"
    return None


def _trend_basis(count: int) -> NDArray[np.float64]:
    """Return an orthonormal basis (time, 3) of second-order polynomials."""
    time = np.linspace(-1.0, 1.0, count)
    basis, _ = np.linalg.qr(np.stack([np.ones(count), time, time**2], axis=1))
    return basis


def _voxelwise(series: NDArray[np.float32]) -> list[Metric]:
    """tSNR, SFNR and DVARS from (time, voxels)."""
    count = series.shape[0]
    values = series.astype(np.float64)
    mean = values.mean(axis=0)
    basis = _trend_basis(count)
    total = np.square(values - mean).sum(axis=0)
    residual = np.square(values).sum(axis=0) - np.square(basis.T @ values).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        tsnr = np.where(total > 0, mean / np.sqrt(total / (count - 1)), np.nan)
        sfnr = np.where(residual > 1e-9 * total, mean / np.sqrt(residual / (count - 3)), np.nan)
    steps = np.sqrt(np.square(np.diff(values, axis=0)).mean(axis=1))
    return [_median("tsnr", tsnr), _median("sfnr", sfnr), measured("dvars", float(steps.mean()))]


def _median(name: str, values: NDArray[np.float64]) -> Metric:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return not_computable(name, "the object does not vary over time")
    return measured(name, float(np.median(finite)))


def _roi(pixels: SeriesPixels) -> list[Metric]:
    """Drift, fluctuation and Weisskoff's radius of decorrelation in the central ROI of the middle slice."""
    names = ("temporal_drift", "temporal_fluctuation", "rdc")
    slices, rows, columns = pixels.shape
    if min(rows, columns) < 2 * ROI_PX:
        return [not_computable(name, f"the image is smaller than {2 * ROI_PX} pixels") for name in names]
    top, left = (rows - ROI_PX) // 2, (columns - ROI_PX) // 2
    middle = slice(slices // 2, slices // 2 + 1)
    block = np.stack(
        [
            pixels.values(v, middle)[0, top : top + ROI_PX, left : left + ROI_PX].astype(np.float64)
            for v in pixels.complete_volumes
        ]
    )
    mean = float(block.mean())
    if mean <= 0:
        return [not_computable(name, "the central region has no signal") for name in names]
    basis = _trend_basis(block.shape[0])
    average = block.mean(axis=(1, 2))
    trend = basis @ (basis.T @ average)
    wide = _detrended_sd(average, basis) / mean
    voxels = block.reshape(block.shape[0], -1)
    single = math.sqrt(float(np.mean([_detrended_sd(voxel, basis) ** 2 for voxel in voxels.T]))) / mean
    return [
        measured(names[0], 100.0 * float(trend.max() - trend.min()) / mean),
        measured(names[1], 100.0 * wide),
        measured(names[2], single / wide)
        if wide > 0
        else not_computable(names[2], "the signal does not vary"),
    ]


def _detrended_sd(values: NDArray[np.float64], basis: NDArray[np.float64]) -> float:
    residual = values - basis @ (basis.T @ values)
    return math.sqrt(float(np.square(residual).sum()) / (values.size - basis.shape[1]))
