"""Artefacts of MR: ghosts along phase, structure in the background, a smooth bias of the intensity."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.mask import Mask, dilate, erode
from qc_app.metrics.mr_sample import MIN_OBJECT_VOXELS, Sample
from qc_app.metrics.order import median
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import Metric, measured, not_computable
from qc_app.metrics.tissue import TissueClasses

MIN_GHOST_FRACTION = 0.01
RAYLEIGH_999_TO_MEDIAN = math.sqrt(math.log(1000.0) / math.log(2.0))
FIT_SAMPLES = 20_000


def ghost_to_signal(pixels: SeriesPixels, sample: Sample) -> Metric:
    """Compare the place of the Nyquist ghost (object shifted by half the field) with the other background."""
    name = "ghost_to_signal"
    if pixels.phase_encoding_axis is None:
        return not_computable(name, "In-plane Phase Encoding Direction (0018,1312) is missing or not unique")
    if sample.background_problem is not None:
        return not_computable(name, sample.background_problem)
    foreground = sample.regions.foreground
    axis = 1 + pixels.phase_encoding_axis
    half = sample.volume.shape[axis] // 2
    outside: Mask = sample.regions.background
    shifted = np.roll(foreground, half, axis=axis)
    ghost = erode(shifted, 2) & outside
    elsewhere = ~dilate(shifted, 2) & outside
    if min(np.count_nonzero(ghost), np.count_nonzero(elsewhere)) < MIN_GHOST_FRACTION * foreground.size:
        return not_computable(
            name, "the object overlaps the place of its ghost, or leaves no background beside it"
        )
    signal = median(sample.volume[foreground])
    if signal <= 0:
        return not_computable(name, "the median signal is zero")
    difference = sample.volume[ghost].mean(dtype=np.float64) - sample.volume[elsewhere].mean(dtype=np.float64)
    return measured(name, float(difference) / signal)


def background_artefact(sample: Sample) -> Metric:
    """Return how much background is brighter than Rayleigh noise of the same median can be, in percent."""
    name = "background_artefact"
    if sample.background_problem is not None:
        return not_computable(name, sample.background_problem)
    limit = sample.background_median * RAYLEIGH_999_TO_MEDIAN
    if limit <= 0:
        return not_computable(name, "the median of the background is zero")
    fraction = np.count_nonzero(sample.background > limit) / sample.background.size
    return measured(name, 100.0 * max(0.0, fraction - 0.001))


def inhomogeneity(sample: Sample, tissues: TissueClasses | None) -> Metric:
    """Fit a second-order polynomial in space to the logarithm of the signal in the eroded object."""
    if tissues is not None:
        return not_computable(
            "inhomogeneity", "the object shows two tissue classes, which the fit takes for a bias"
        )
    shape = sample.volume.shape
    places = _thinned(np.flatnonzero(sample.regions.inner))
    signal = sample.volume.ravel()[places].astype(np.float64)
    positive = signal > 0
    if np.count_nonzero(positive) < MIN_OBJECT_VOXELS:
        return not_computable("inhomogeneity", "too few voxels with signal")
    logarithm = np.log(signal[positive])
    coefficients, *_ = np.linalg.lstsq(_quadratic_terms(places[positive], shape), logarithm, rcond=None)
    everywhere = _thinned(np.flatnonzero(sample.regions.foreground))
    field = np.exp(_quadratic_terms(everywhere, shape) @ coefficients)
    low, high = np.percentile(field, [5, 95])
    return measured("inhomogeneity", float((high - low) / field.mean()))


def _thinned(places: NDArray[np.intp]) -> NDArray[np.intp]:
    return places[:: max(1, places.size // FIT_SAMPLES)]


def _quadratic_terms(places: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the design matrix (places, 10) of a second-order polynomial; (places, 6) for fewer than three slices."""
    z, y, x = (
        2.0 * axis / max(1, size - 1) - 1.0
        for axis, size in zip(np.unravel_index(places, shape), shape, strict=True)
    )
    terms = [np.ones_like(x), x, y, x * x, y * y, x * y]
    if shape[0] > 2:
        terms += [z, z * z, x * z, y * z]
    return np.stack(terms, axis=1)
