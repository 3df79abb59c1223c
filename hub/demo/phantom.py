"""Numerical head and water phantoms: labels, signals and what a scanner does to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

AIR, SKULL, SCALP, CSF, GREY, WHITE, VENTRICLE, WATER = range(8)

T1_SIGNAL = np.array([0, 60, 620, 240, 620, 1000, 220, 800], dtype=np.float32)
FLAIR_SIGNAL = np.array([0, 50, 520, 130, 820, 600, 110, 700], dtype=np.float32)
CT_HU = np.array([-1000, 900, 40, 8, 38, 28, 6, 0], dtype=np.float32)
PET_SUV = np.array([0, 0.4, 0.6, 0.5, 6.0, 2.0, 0.5, 1.0], dtype=np.float32)

Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScannerEffect:
    """What a scanner does to the signal.

    `noise` is in signal units before the gain, `bias` a fraction, `blur_px` in pixels, `ghost` the fraction of
    the scalp's signal that appears half a field of view away along the phase direction (ROW).
    """

    gain: float = 1.0
    noise: float = 25.0
    bias: float = 0.1
    blur_px: float = 0.0
    ghost: float = 0.06


def _axes(slices: int, rows: int, columns: int) -> tuple[Volume, Volume, Volume]:
    z, y, x = np.ogrid[-0.55 : 0.58 : slices * 1j, -1.28 : 1.28 : rows * 1j, -1.28 : 1.28 : columns * 1j]
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


def head_labels(
    slices: int, rows: int, columns: int, atrophy: float = 0.0, size: float = 1.0
) -> NDArray[np.uint8]:
    """Return tissue labels (slices, rows, columns) of a head; `atrophy` (0 to 1) widens the ventricles."""
    x, y, z = (axis / size for axis in _axes(slices, rows, columns))

    def inside(a: float, b: float, c: float, dx: float = 0.0, dy: float = 0.0) -> NDArray[np.bool_]:
        return ((x - dx) / a) ** 2 + ((y - dy) / b) ** 2 + (z / c) ** 2 <= 1

    labels = np.zeros((slices, rows, columns), dtype=np.uint8)
    labels[inside(0.88, 1.06, 1.08)] = SCALP
    labels[inside(0.80, 0.98, 1.00)] = SKULL
    labels[inside(0.74, 0.92, 0.94)] = CSF
    folds = 1 + 0.035 * np.sin(14 * np.arctan2(y, x)) * np.cos(9 * z)
    radius = np.sqrt((x / 0.70) ** 2 + (y / 0.88) ** 2 + (z / 0.90) ** 2) / folds
    labels[radius <= 1] = GREY
    labels[radius <= 0.84] = WHITE
    # Face and neck join scalp and brain: a mask of the largest component has to hold the whole head.
    face = (np.abs(x) < 0.25) & (y < -0.6) & (z < -0.3)
    labels[face & np.isin(labels, (SKULL, CSF))] = SCALP
    for side in (-1, 1):
        labels[inside(0.14, 0.10, 0.20, dx=side * 0.22, dy=0.12)] = GREY
        wider = 0.05 * atrophy
        labels[inside(0.07 + wider, 0.26 + wider, 0.34, dx=side * 0.11, dy=-0.10)] = VENTRICLE
    return labels


def bias_field(shape: tuple[int, int, int], amplitude: float) -> Volume:
    """Return a smooth multiplicative field with mean near 1 and half-range `amplitude`."""
    z, y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    field = 1 + amplitude * (0.6 * x + 0.4 * y * y - 0.2 * z)
    return np.broadcast_to(field, shape).astype(np.float32)


def rician(signal: Volume, noise: float, rng: np.random.Generator) -> Volume:
    """Return the magnitude of `signal` plus complex Gaussian noise of standard deviation `noise`."""
    real = rng.standard_normal(signal.shape, dtype=np.float32)
    real *= noise
    real += signal
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary *= noise
    return np.hypot(real, imaginary, out=real)


def mr_volume(
    labels: NDArray[np.uint8], signals: Volume, effect: ScannerEffect, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return a magnitude MR volume; blur acts on the object, so that the noise stays white."""
    signal = signals[labels] * effect.gain
    if effect.blur_px:
        signal = gaussian_filter(signal, (0, effect.blur_px, effect.blur_px))
    signal *= bias_field(labels.shape, effect.bias)
    moving = np.where(labels == SCALP, signal, np.float32(0))
    signal += np.float32(effect.ghost) * np.roll(moving, signal.shape[2] // 2, axis=2)
    return np.clip(np.rint(rician(signal, effect.noise * effect.gain, rng)), 0, 4095).astype(np.uint16)


def ct_volume(
    labels: NDArray[np.uint8], noise_hu: float, blur_px: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return CT numbers in HU: the head in air, with noise that is a third as strong in air."""
    hu = CT_HU[labels]
    if blur_px:
        hu = gaussian_filter(hu, (0, blur_px, blur_px))
    strength = np.where(labels == AIR, noise_hu / 3, noise_hu).astype(np.float32)
    hu = hu + strength * rng.standard_normal(labels.shape, dtype=np.float32)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def water_labels(slices: int, rows: int, columns: int) -> NDArray[np.uint8]:
    """Return the labels of a cylinder along the slice axis, as WATER in air."""
    y, x = np.ogrid[-1.28 : 1.28 : rows * 1j, -1.28 : 1.28 : columns * 1j]
    disk = np.where(x * x + y * y <= 0.81, WATER, AIR).astype(np.uint8)
    return np.broadcast_to(disk, (slices, rows, columns)).copy()


def pet_volume(labels: NDArray[np.uint8], noise: float, rng: np.random.Generator) -> Volume:
    """Return standardized uptake values of a tracer taken up by grey matter."""
    suv = gaussian_filter(PET_SUV[labels], (0.7, 2.0, 2.0))
    grain = 1 + noise * rng.standard_normal(suv.shape, dtype=np.float32)
    return np.clip(suv * grain, 0, None).astype(np.float32)
