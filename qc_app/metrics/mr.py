"""Metrics of magnitude MR images without an atlas: noise, contrast, focus, ghosts, uniformity, dropout."""

from __future__ import annotations

import math

import numpy as np

from qc_app.metrics.artefacts import background_artefact, ghost_to_signal, inhomogeneity
from qc_app.metrics.dropout import dropout
from qc_app.metrics.mask import Volume
from qc_app.metrics.mr_sample import MIN_OBJECT_VOXELS, Sample, take_sample
from qc_app.metrics.order import median
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import METRICS, MR, Metric, measured, not_computable
from qc_app.metrics.temporal import NAMES as TEMPORAL_NAMES
from qc_app.metrics.tissue import tissue_classes, tissue_contrast

RAYLEIGH_SD = math.sqrt(2.0 - math.pi / 2.0)
RAYLEIGH_RATIO_RANGE = (1.75, 2.05)
NORMAL_MAD = 0.6745
LAPLACIAN_GAIN = 6.0

_NAMES = tuple(
    name
    for name, definition in METRICS.items()
    if definition.modalities == (MR,) and name not in TEMPORAL_NAMES
)


def metrics(pixels: SeriesPixels) -> list[Metric]:
    """Return all MR metrics of the first volume, from at most 64 slices at a constant stride."""
    problem = pixels.geometry.problem
    if problem is None and (pixels.shape[1] < 16 or pixels.shape[2] < 16):
        problem = "the image is smaller than 16 x 16 pixels"
    if problem is None and pixels.extremes[0] < 0:
        problem = "the image has negative values (phase or real part), so it is no magnitude image"
    if problem is not None:
        return [not_computable(name, problem) for name in _NAMES]
    sample = take_sample(pixels)
    if sample.inner.size < MIN_OBJECT_VOXELS:
        reason = "no object large enough to measure was found"
        found = [not_computable(name, reason) for name in _NAMES if name != "efc"]
        return [*found, _efc_metric(pixels)]
    tissues = tissue_classes(sample.inner)
    return [
        *_signal(pixels, sample),
        *_background(sample),
        *_noise_and_snr(pixels, sample),
        *_contrast(sample),
        _efc_metric(pixels),
        ghost_to_signal(pixels, sample),
        background_artefact(sample),
        inhomogeneity(sample, tissues),
        dropout(pixels, sample.regions.foreground, sample.stride),
        *tissue_contrast(sample, tissues),
    ]


def _signal(pixels: SeriesPixels, sample: Sample) -> list[Metric]:
    mean = sample.inner_mean
    sd = float(sample.inner.std(dtype=np.float64))
    cv = (
        measured("foreground_cv", 100.0 * sd / mean)
        if mean > 0
        else not_computable("foreground_cv", "the mean is zero")
    )
    return [measured("foreground_mean", mean), cv, _volume(pixels, sample)]


def _volume(pixels: SeriesPixels, sample: Sample) -> Metric:
    spacing, pitch = pixels.pixel_spacing_mm, pixels.geometry.pitch_mm
    if spacing is None or pitch is None:
        return not_computable("foreground_volume", "Pixel Spacing or the slice pitch is not known")
    if sample.regions.fills_field:
        return not_computable(
            "foreground_volume", "the object fills the field of view, so its extent is not seen"
        )
    if pixels.geometry.missing_mm:
        return not_computable("foreground_volume", "slices are missing")
    covered = pixels.slice_count / sample.volume.shape[0]
    voxels = int(np.count_nonzero(sample.regions.foreground)) * covered
    return measured("foreground_volume", voxels * spacing[0] * spacing[1] * pitch / 1000.0)


def _background(sample: Sample) -> list[Metric]:
    names = ("background_mean", "background_sd")
    if sample.background_problem is not None:
        return [not_computable(name, sample.background_problem) for name in names]
    return [measured(names[0], sample.background_mean), measured(names[1], sample.background_sd)]


def _noise_and_snr(pixels: SeriesPixels, sample: Sample) -> list[Metric]:
    mean = sample.inner_mean
    result = []
    estimates = (("background", rayleigh_sigma(sample)), ("residual", _residual_sigma(pixels, sample)))
    for kind, (sigma, reason) in estimates:
        if sigma is None:
            result += [not_computable(f"noise_{kind}", reason), not_computable(f"snr_{kind}", reason)]
        else:
            result += [measured(f"noise_{kind}", sigma), measured(f"snr_{kind}", mean / sigma)]
    return result


def rayleigh_sigma(sample: Sample) -> tuple[float | None, str]:
    """Return sigma from the background, or None and why; refused where the background is not Rayleigh."""
    if sample.background_problem is not None:
        return None, sample.background_problem
    mean, sd = sample.background_mean, sample.background_sd
    if sd == 0:
        return None, "the background is constant"
    low, high = RAYLEIGH_RATIO_RANGE
    if not low <= mean / sd <= high:
        return None, (
            f"background mean/sd is {mean / sd:.2f}, outside {low} to {high} (Rayleigh 1.91): "
            "the background is not air, or several coils were combined"
        )
    return sd / RAYLEIGH_SD, ""


def _residual_sigma(pixels: SeriesPixels, sample: Sample) -> tuple[float | None, str]:
    if pixels.interpolated:
        return (
            None,
            "the image was interpolated (Acquisition Matrix below Rows or Columns), which hides its noise",
        )
    residual = laplacian(sample.volume)[sample.regions.inner[:, 1:-1, 1:-1]]
    if residual.size < MIN_OBJECT_VOXELS:
        return None, "the object is too small"
    sigma = median(np.abs(residual)) / NORMAL_MAD / LAPLACIAN_GAIN
    return (sigma, "") if sigma > 0 else (None, "the object has no measurable noise")


def laplacian(volume: Volume) -> Volume:
    """Convolve each slice with [1,-2,1]^T [1,-2,1], which removes planes and quadratics (Immerkaer 1996)."""
    rows: Volume = volume[:, 2:] + volume[:, :-2]
    rows -= 2 * volume[:, 1:-1]
    both: Volume = rows[:, :, 2:] + rows[:, :, :-2]
    both -= 2 * rows[:, :, 1:-1]
    return both


def _contrast(sample: Sample) -> list[Metric]:
    names = ("foreground_background_contrast", "fber", "fber_median")
    if sample.background_problem is not None:
        return [not_computable(name, sample.background_problem) for name in names]
    inner, background = sample.inner, sample.background
    bright, dark = sample.inner_mean, sample.background_mean
    energy = float(np.square(background).mean(dtype=np.float64))
    dark_median = sample.background_median**2
    return [
        measured(names[0], (bright - dark) / (bright + dark)),
        measured(names[1], float(np.square(inner).mean(dtype=np.float64)) / energy),
        measured(names[2], median(inner) ** 2 / dark_median)
        if dark_median > 0
        else not_computable(names[2], "the median of the background is zero"),
    ]


def _efc_metric(pixels: SeriesPixels) -> Metric:
    value = entropy_focus(pixels)
    return measured("efc", value) if value is not None else not_computable("efc", "the image is empty")


def entropy_focus(pixels: SeriesPixels) -> float | None:
    """Return the EFC over all voxels of the first volume: 0 for one bright voxel, 1 for a constant image."""
    total = squares = entropy = 0.0
    count = math.prod(pixels.shape)
    for place in range(pixels.slice_count):
        x = pixels.values(0, slice(place, place + 1)).ravel()
        total += float(x.sum(dtype=np.float64))
        squares += float(np.square(x).sum(dtype=np.float64))
        entropy += float((x * np.log(np.maximum(x, np.float32(1e-16)))).sum(dtype=np.float64))
    if squares <= 0 or count < 2:
        return None
    norm = math.sqrt(squares)
    return -(entropy - math.log(norm) * total) / norm / (math.sqrt(count) * math.log(math.sqrt(count)))
