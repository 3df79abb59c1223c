"""Metrics of magnitude MR images without an atlas: noise, contrast, focus, ghosts, uniformity, dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.dropout import dropout
from qc_app.metrics.mask import Mask, Regions, Volume, dilate, erode, find_regions
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import METRICS, MR, Metric, measured, not_computable

MAX_SAMPLED_SLICES = 64
MIN_OBJECT_VOXELS = 200
MIN_REGION_FRACTION = 0.02
MIN_GHOST_FRACTION = 0.01
MAX_ZERO_FRACTION = 0.5
RAYLEIGH_SD = math.sqrt(2.0 - math.pi / 2.0)
RAYLEIGH_RATIO_RANGE = (1.75, 2.05)
RAYLEIGH_999_TO_MEDIAN = math.sqrt(math.log(1000.0) / math.log(2.0))
NORMAL_MAD = 0.6745
LAPLACIAN_GAIN = 6.0
FIT_SAMPLES = 20_000
MIN_CLASS_FRACTION = 0.1
MIN_CLASS_SEPARATION_SD = 4.0

_NAMES = tuple(
    name
    for name, definition in METRICS.items()
    if definition.modalities == (MR,) and definition.citation[:8] not in ("Friedman", "Weisskof", "Power et")
)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Every `stride`-th slice of the first volume and its regions; the noise estimates do not depend on the stride."""

    volume: Volume
    regions: Regions
    stride: int
    inner: NDArray[np.float32]
    background: NDArray[np.float32]
    background_problem: str | None


def metrics(pixels: SeriesPixels) -> list[Metric]:
    """Return all MR metrics of the first volume; volumes above 64 slices are sampled at a constant slice stride."""
    problem = pixels.geometry.problem
    if problem is None and (pixels.shape[1] < 16 or pixels.shape[2] < 16):
        problem = "the image is smaller than 16 x 16 pixels"
    if problem is None and pixels.extremes[0] < 0:
        problem = "the image has negative values (phase or real part), so it is no magnitude image"
    if problem is not None:
        return [not_computable(name, problem) for name in _NAMES]
    sample = _sample(pixels)
    if sample.inner.size < MIN_OBJECT_VOXELS:
        reason = "no object large enough to measure was found"
        found = [not_computable(name, reason) for name in _NAMES if name != "efc"]
        return [*found, _efc_metric(pixels)]
    return [
        *_signal(pixels, sample),
        *_background(sample),
        *_noise_and_snr(pixels, sample),
        *_contrast(sample),
        _efc_metric(pixels),
        _ghost(pixels, sample),
        _background_artefact(sample),
        _inhomogeneity(sample),
        dropout(pixels, sample.regions.foreground, sample.stride),
        *_tissues(sample),
    ]


def _sample(pixels: SeriesPixels) -> _Sample:
    stride = -(-pixels.slice_count // MAX_SAMPLED_SLICES)
    chosen = slice(None, None, stride)
    volume = pixels.values(0, chosen)
    regions = find_regions(volume, pixels.padded(0, chosen))
    background = volume[regions.background]
    return _Sample(
        volume,
        regions,
        stride,
        volume[regions.inner],
        background,
        _background_problem(volume, regions, background),
    )


def _background_problem(volume: Volume, regions: Regions, background: NDArray[np.float32]) -> str | None:
    if regions.fills_field:
        return "the object fills the field of view, so there is no background"
    if background.size < MIN_REGION_FRACTION * volume.size:
        return "less than 2 % of the voxels are background"
    if np.count_nonzero(background == 0) >= MAX_ZERO_FRACTION * background.size:
        return "at least half of the background is exactly zero (masked by the scanner)"
    return None


def _signal(pixels: SeriesPixels, sample: _Sample) -> list[Metric]:
    mean = float(sample.inner.mean(dtype=np.float64))
    sd = float(sample.inner.std(dtype=np.float64))
    cv = (
        measured("foreground_cv", 100.0 * sd / mean)
        if mean > 0
        else not_computable("foreground_cv", "the mean is zero")
    )
    return [measured("foreground_mean", mean), cv, _volume(pixels, sample)]


def _volume(pixels: SeriesPixels, sample: _Sample) -> Metric:
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


def _background(sample: _Sample) -> list[Metric]:
    names = ("background_mean", "background_sd")
    if sample.background_problem is not None:
        return [not_computable(name, sample.background_problem) for name in names]
    mean, sd = sample.background.mean(dtype=np.float64), sample.background.std(dtype=np.float64)
    return [measured(names[0], float(mean)), measured(names[1], float(sd))]


def _noise_and_snr(pixels: SeriesPixels, sample: _Sample) -> list[Metric]:
    mean = float(sample.inner.mean(dtype=np.float64))
    result = []
    estimates = (("background", rayleigh_sigma(sample)), ("residual", _residual_sigma(pixels, sample)))
    for kind, (sigma, reason) in estimates:
        if sigma is None:
            result += [not_computable(f"noise_{kind}", reason), not_computable(f"snr_{kind}", reason)]
        else:
            result += [measured(f"noise_{kind}", sigma), measured(f"snr_{kind}", mean / sigma)]
    return result


def rayleigh_sigma(sample: _Sample) -> tuple[float | None, str]:
    """Return the noise sigma from the background, or None and why; refused where the background is not Rayleigh."""
    if sample.background_problem is not None:
        return None, sample.background_problem
    mean, sd = float(sample.background.mean(dtype=np.float64)), float(sample.background.std(dtype=np.float64))
    if sd == 0:
        return None, "the background is constant"
    low, high = RAYLEIGH_RATIO_RANGE
    if not low <= mean / sd <= high:
        return None, (
            f"background mean/sd is {mean / sd:.2f}, outside {low} to {high} (Rayleigh 1.91): the background is not air, "
            "or several coils were combined"
        )
    return sd / RAYLEIGH_SD, ""


def _residual_sigma(pixels: SeriesPixels, sample: _Sample) -> tuple[float | None, str]:
    if pixels.interpolated:
        return (
            None,
            "the image was interpolated (Acquisition Matrix below Rows or Columns), which hides its noise",
        )
    residual = laplacian(sample.volume)[sample.regions.inner[:, 1:-1, 1:-1]]
    if residual.size < MIN_OBJECT_VOXELS:
        return None, "the object is too small"
    sigma = float(np.median(np.abs(residual))) / NORMAL_MAD / LAPLACIAN_GAIN
    return (sigma, "") if sigma > 0 else (None, "the object has no measurable noise")


def laplacian(volume: Volume) -> Volume:
    """Convolve each slice with [1,-2,1]^T [1,-2,1], which removes planes and quadratics (Immerkaer 1996)."""
    rows: Volume = volume[:, 2:] + volume[:, :-2] - 2 * volume[:, 1:-1]
    both: Volume = rows[:, :, 2:] + rows[:, :, :-2] - 2 * rows[:, :, 1:-1]
    return both


def _contrast(sample: _Sample) -> list[Metric]:
    names = ("foreground_background_contrast", "fber", "fber_median")
    if sample.background_problem is not None:
        return [not_computable(name, sample.background_problem) for name in names]
    inner, background = sample.inner, sample.background
    bright, dark = float(inner.mean(dtype=np.float64)), float(background.mean(dtype=np.float64))
    energy = float(np.square(background).mean(dtype=np.float64))
    median = float(np.median(background)) ** 2
    return [
        measured(names[0], (bright - dark) / (bright + dark)),
        measured(names[1], float(np.square(inner).mean(dtype=np.float64)) / energy),
        measured(names[2], float(np.median(inner)) ** 2 / median)
        if median > 0
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


def _ghost(pixels: SeriesPixels, sample: _Sample) -> Metric:
    name = "ghost_to_signal"
    if pixels.phase_encoding_axis is None:
        return not_computable(name, "In-plane Phase Encoding Direction (0018,1312) is missing or not unique")
    if sample.background_problem is not None:
        return not_computable(name, sample.background_problem)
    foreground = sample.regions.foreground
    axis = 1 + pixels.phase_encoding_axis
    half = sample.volume.shape[axis] // 2
    outside: Mask = sample.regions.background
    ghost = erode(np.roll(foreground, half, axis=axis), 2) & outside
    elsewhere = ~dilate(np.roll(foreground, half, axis=axis), 2) & outside
    if min(np.count_nonzero(ghost), np.count_nonzero(elsewhere)) < MIN_GHOST_FRACTION * foreground.size:
        return not_computable(
            name, "the object overlaps the place of its ghost, or leaves no background beside it"
        )
    signal = float(np.median(sample.volume[foreground]))
    if signal <= 0:
        return not_computable(name, "the median signal is zero")
    difference = sample.volume[ghost].mean(dtype=np.float64) - sample.volume[elsewhere].mean(dtype=np.float64)
    return measured(name, float(difference) / signal)


def _background_artefact(sample: _Sample) -> Metric:
    name = "background_artefact"
    if sample.background_problem is not None:
        return not_computable(name, sample.background_problem)
    limit = float(np.median(sample.background)) * RAYLEIGH_999_TO_MEDIAN
    if limit <= 0:
        return not_computable(name, "the median of the background is zero")
    fraction = np.count_nonzero(sample.background > limit) / sample.background.size
    return measured(name, 100.0 * max(0.0, fraction - 0.001))


def _inhomogeneity(sample: _Sample) -> Metric:
    """Fit a second-order polynomial in three coordinates to the logarithm of the signal in the eroded object."""
    places = np.flatnonzero(sample.regions.inner)
    places = places[:: max(1, places.size // FIT_SAMPLES)]
    signal = sample.volume.ravel()[places].astype(np.float64)
    positive = signal > 0
    if np.count_nonzero(positive) < MIN_OBJECT_VOXELS:
        return not_computable("inhomogeneity", "too few voxels with signal")
    z, y, x = (
        2.0 * axis / max(1, size - 1) - 1.0
        for axis, size in zip(
            np.unravel_index(places[positive], sample.volume.shape), sample.volume.shape, strict=True
        )
    )
    terms = [np.ones_like(x), x, y, x * x, y * y, x * y]
    if sample.volume.shape[0] > 2:
        terms += [z, z * z, x * z, y * z]
    design = np.stack(terms, axis=1)
    coefficients, *_ = np.linalg.lstsq(design, np.log(signal[positive]), rcond=None)
    field = np.exp(design @ coefficients)
    low, high = np.percentile(field, [5, 95])
    return measured("inhomogeneity", float((high - low) / field.mean()))


def _tissues(sample: _Sample) -> list[Metric]:
    """Contrast of two tissues, where the object's histogram separates into two classes (two-means)."""
    names = ("tissue_cnr", "tissue_cjv")
    values = sample.inner
    cut = float(values.mean(dtype=np.float64))
    for _ in range(50):
        low, high = values[values <= cut], values[values > cut]
        if min(low.size, high.size) < MIN_CLASS_FRACTION * values.size:
            return [
                not_computable(name, "the object does not separate into two tissue classes") for name in names
            ]
        updated = (float(low.mean(dtype=np.float64)) + float(high.mean(dtype=np.float64))) / 2
        if math.isclose(updated, cut, rel_tol=1e-5):
            break
        cut = updated
    distance = float(high.mean(dtype=np.float64) - low.mean(dtype=np.float64))
    sd1, sd2 = float(low.std(dtype=np.float64)), float(high.std(dtype=np.float64))
    if distance < MIN_CLASS_SEPARATION_SD * (sd1 + sd2) / 2:
        return [
            not_computable(name, "the object does not separate into two tissue classes") for name in names
        ]
    cjv = measured(names[1], (sd1 + sd2) / distance)
    if sample.background_problem is not None:
        return [not_computable(names[0], sample.background_problem), cjv]
    noise = float(sample.background.std(dtype=np.float64))
    return [measured(names[0], distance / math.sqrt(noise**2 + sd1**2 + sd2**2)), cjv]
