"""Where the object is and where air is, from the pixels alone.

Morphology uses squares in the image plane and treats what lies outside the image as the pixels at its edge,
so that first and last slices and objects at the border stay (scipy's default loses them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

CLIP_PERCENTILE = 99.5
CLOSE_PX = 2
ERODE_PX = 2
DILATE_PX = 5
OTSU_BINS = 256
MIN_COMPONENT_FRACTION = 0.1
MAX_DARK_TO_BRIGHT = 0.5
_IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]


@dataclass(frozen=True, eq=False)
class Regions:
    """The object, the object without its rim, and the background beyond a margin; each (slices, rows, columns).

    `fills_field` says that no dark background exists: then the object is the whole field and the background
    empty.
    """

    foreground: Mask
    inner: Mask
    background: Mask
    fills_field: bool


def find_regions(volume: Volume, padded: Mask | None = None) -> Regions:
    """Separate object from background: clip at P99.5, Otsu, large components, fill holes, close.

    `padded` voxels belong to neither.
    """
    valid = volume if padded is None else volume[~padded]
    foreground, fills_field = _threshold(volume, valid)
    if padded is not None:
        foreground &= ~padded
    if not fills_field:
        foreground = _close(_fill_holes(_large_components(foreground)), CLOSE_PX)
    inner = erode(foreground, ERODE_PX)
    background = ~dilate(foreground, DILATE_PX)
    if padded is not None:
        inner &= ~padded
        background &= ~padded
    return Regions(foreground, inner, background, fills_field)


def _threshold(volume: Volume, valid: Volume) -> tuple[Mask, bool]:
    """Return the voxels above Otsu's threshold, or the whole field where the classes are not object and air."""
    if valid.size == 0:
        return np.zeros(volume.shape, dtype=bool), True
    sample = valid.ravel()[:: max(1, valid.size // 500_000)]
    low = float(valid.min())
    high = float(np.percentile(sample, CLIP_PERCENTILE))
    if high <= low:
        return np.ones(volume.shape, dtype=bool), True
    scaled = np.clip((sample - low) * (OTSU_BINS / (high - low)), 0, OTSU_BINS - 1).astype(np.uint8)
    counts = np.bincount(scaled, minlength=OTSU_BINS).astype(np.float64)
    cut, dark, bright = _otsu(counts)
    if low >= 0 and dark + 0.5 + low * OTSU_BINS / (high - low) > MAX_DARK_TO_BRIGHT * (
        bright + 0.5 + low * OTSU_BINS / (high - low)
    ):
        return np.ones(volume.shape, dtype=bool), True
    return volume > np.float32(low + (cut + 1) * (high - low) / OTSU_BINS), False


def _otsu(counts: NDArray[np.float64]) -> tuple[int, float, float]:
    """Return the last bin of the dark class and the mean bins of both classes (Otsu 1979)."""
    bins = np.arange(counts.size)
    weight = np.cumsum(counts)
    moment = np.cumsum(counts * bins)
    rest = weight[-1] - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        dark, bright = moment / weight, (moment[-1] - moment) / rest
        between = np.where((weight > 0) & (rest > 0), weight * rest * (dark - bright) ** 2, -1.0)
    cut = int(np.argmax(between))
    return cut, float(dark[cut]), float(bright[cut])


def _large_components(mask: Mask) -> Mask:
    """Keep the largest component and those of at least a tenth of its size (two legs, two breasts)."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels[mask], minlength=count + 1)
    large = sizes >= MIN_COMPONENT_FRACTION * sizes.max()
    return mask if large[1:].all() else np.asarray(large.take(labels))


def _fill_holes(mask: Mask) -> Mask:
    """Fill, slice by slice, background that does not reach the border of the image."""
    labels, count = ndimage.label(~mask, structure=_IN_PLANE)
    if count == 0:
        return mask
    open_labels = np.zeros(count + 1, dtype=bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        open_labels[edge.ravel()] = True
    open_labels[0] = False
    return mask if open_labels[1:].all() else np.asarray((~open_labels).take(labels))


def dilate(mask: Mask, pixels: int) -> Mask:
    """Dilate each slice by a square of half-width `pixels`."""
    return _spread(mask, pixels)


def erode(mask: Mask, pixels: int) -> Mask:
    """Erode each slice by a square of half-width `pixels`; the border of the image does not erode."""
    return ~_spread(~mask, pixels)


def _close(mask: Mask, pixels: int) -> Mask:
    return erode(dilate(mask, pixels), pixels)


def _spread(mask: Mask, pixels: int) -> Mask:
    result = mask
    for axis in (1, 2):
        source, result = result, result.copy()
        length = source.shape[axis]
        for shift in range(1, min(pixels, length - 1) + 1):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(shift, None), slice(None, length - shift)
            result[tuple(ahead)] |= source[tuple(behind)]
            result[tuple(behind)] |= source[tuple(ahead)]
    return result
