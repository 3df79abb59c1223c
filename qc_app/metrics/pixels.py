"""Load the pixels of one series: sorted by position, rescaled per slice, with what the metrics need to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics import elements
from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.geometry import StackGeometry, arrange
from qc_app.metrics.header import FrameFacts, InstanceHeader, read_header
from qc_app.metrics.pet_facts import PetFacts, read_pet_facts
from qc_app.metrics.stored import read_stored

__all__ = ["PixelsUnavailable", "SeriesPixels", "load_series"]

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SeriesPixels:
    """The pixels of one series.

    `stored` (frames, rows, columns) holds stored values sorted by position; `slope` and `intercept`
    (frames,) turn them into real values. `geometry.index` maps (volume, slice) to a frame. `frames` and
    `instance_of_frame` (index of the instance in the caller's sequence) follow the same sorted order.
    `phase_encoding_axis` is 0 when phase runs along image columns (row index varies), 1 along rows, None
    when unknown. `interpolated` says that the acquired matrix is smaller than the stored one; None when
    unknown.
    """

    modality: str
    stored: NDArray[Any]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    geometry: StackGeometry
    frames: tuple[FrameFacts, ...]
    instance_of_frame: tuple[int, ...]
    pixel_spacing_mm: tuple[float, float] | None
    monochrome1: bool
    padding: tuple[float, float] | None
    phase_encoding_axis: int | None
    interpolated: bool | None
    pet: PetFacts | None

    @property
    def volume_count(self) -> int:
        return int(self.geometry.index.shape[0])

    @property
    def slice_count(self) -> int:
        return int(self.geometry.index.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of one volume."""
        return (self.slice_count, int(self.stored.shape[1]), int(self.stored.shape[2]))

    @cached_property
    def uniform_rescale(self) -> bool:
        return bool((self.slope == self.slope[0]).all() and (self.intercept == self.intercept[0]).all())

    @cached_property
    def complete_volumes(self) -> tuple[int, ...]:
        """Volumes that have a frame at every position."""
        return tuple(int(v) for v in np.flatnonzero((self.geometry.index >= 0).all(axis=1)))

    def values(self, volume: int = 0, slices: slice = slice(None)) -> Volume:
        """Return real values (slices, rows, columns) as float32; volume 0 always has every position.

        MONOCHROME1 values of MR are mirrored between the series' extremes, so that signal is bright; the
        calibrated values of CT and PET keep their meaning and are only displayed inverted.
        """
        real = self.rescaled(self.geometry.index[volume, slices])
        if self.monochrome1 and self.modality == "MR":
            low, high = self.extremes
            real = np.float32(low + high) - real
        return real

    def rescaled(self, chosen: NDArray[np.intp]) -> Volume:
        """Return the chosen frames as slope x stored + intercept, float32."""
        real: Volume = self._contiguous(chosen).astype(np.float32)
        slope, intercept = self.slope[chosen], self.intercept[chosen]
        if not (slope == 1).all():
            real *= slope.astype(np.float32)[:, None, None]
        if intercept.any():
            real += intercept.astype(np.float32)[:, None, None]
        return real

    def padded(self, volume: int = 0, slices: slice = slice(None)) -> NDArray[np.bool_] | None:
        """Return where the pixel padding value stands for "no image", or None when the header names none."""
        if self.padding is None:
            return None
        stored = self._contiguous(self.geometry.index[volume, slices])
        low, high = self.padding
        return np.asarray((stored >= low) & (stored <= high))

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest real value of the series."""
        low = self.stored.min(axis=(1, 2)) * self.slope + self.intercept
        high = self.stored.max(axis=(1, 2)) * self.slope + self.intercept
        both = np.concatenate([low, high])
        return float(both.min()), float(both.max())

    def _contiguous(self, chosen: NDArray[np.intp]) -> NDArray[Any]:
        """Return the chosen frames, as a view where they stand in steps (the usual case)."""
        if len(chosen) > 1:
            steps = np.diff(chosen)
            if steps[0] > 0 and (steps == steps[0]).all():
                return self.stored[chosen[0] : chosen[-1] + 1 : steps[0]]
        return np.asarray(self.stored[chosen])


def load_series(instances: Sequence[bytes | memoryview]) -> SeriesPixels:
    """Load one series from its Part 10 instances, classic or enhanced multi-frame, in any order.

    Raises PixelsUnavailable(code, detail) when the pixels cannot be used; see qc_app.metrics.errors for the
    codes.
    """
    if not instances:
        raise PixelsUnavailable("no_instances", "The series has no instances.")
    headers = [read_header(data) for data in instances]
    modality = _only_modality(headers)
    flat = [(i, facts) for i, header in enumerate(headers) for facts in header.frames]
    geometry = arrange([facts for _, facts in flat], _mosaic_problem(headers))
    target = np.empty(len(flat), dtype=np.intp)
    target[geometry.order] = np.arange(len(flat))
    stored = read_stored(headers, target)
    ordered = [flat[i] for i in geometry.order]
    first = headers[0]
    return SeriesPixels(
        modality=modality,
        stored=stored,
        slope=np.array([facts.slope for _, facts in ordered]),
        intercept=np.array([facts.intercept for _, facts in ordered]),
        geometry=geometry,
        frames=tuple(facts for _, facts in ordered),
        instance_of_frame=tuple(i for i, _ in ordered),
        pixel_spacing_mm=_pixel_spacing(ordered),
        monochrome1=_same([h.layout.photometric for h in headers], "Photometric Interpretation")
        == "MONOCHROME1",
        padding=first.padding if all(h.padding == first.padding for h in headers) else None,
        phase_encoding_axis=_phase_encoding_axis(headers),
        interpolated=_interpolated(first),
        pet=_pet_facts(headers, modality),
    )


def _mosaic_problem(headers: Sequence[InstanceHeader]) -> str | None:
    """Return why no stack can be formed when a Siemens mosaic holds a whole volume in one image, else None."""
    if any("MOSAIC" in elements.text(header.dataset, 0x00080008).split("\\") for header in headers):
        return "the images are Siemens mosaics (a whole volume as tiles); export the series as single slices"
    return None


def _pet_facts(headers: Sequence[InstanceHeader], modality: str) -> PetFacts | None:
    if modality != "PT":
        return None
    rescaled = all(facts.rescale_present for header in headers for facts in header.frames)
    return read_pet_facts([header.dataset for header in headers], rescaled)


def _only_modality(headers: Sequence[InstanceHeader]) -> str:
    found = sorted({header.modality for header in headers})
    if len(found) != 1:
        raise PixelsUnavailable(
            "mixed_modality", f"The instances name several modalities: {', '.join(found)}."
        )
    return found[0]


def _same(values: Sequence[str], label: str) -> str:
    if len(set(values)) != 1:
        raise PixelsUnavailable("unsupported_pixels", f"The instances differ in {label}.")
    return values[0]


def _pixel_spacing(ordered: Sequence[tuple[int, FrameFacts]]) -> tuple[float, float] | None:
    spacing = ordered[0][1].pixel_spacing_mm
    if (
        len(spacing) != 2
        or min(spacing) <= 0
        or any(facts.pixel_spacing_mm != spacing for _, facts in ordered)
    ):
        return None
    return spacing[0], spacing[1]


def _phase_encoding_axis(headers: Sequence[InstanceHeader]) -> int | None:
    """Return the array axis along which phase is encoded: (0018,1312) or, in enhanced MR, the same in a group."""
    found = {facts.phase_encoding for header in headers for facts in header.frames}
    return {"COL": 0, "COLUMN": 0, "ROW": 1}.get(found.pop()) if len(found) == 1 else None


def _interpolated(header: InstanceHeader) -> bool | None:
    """Compare Acquisition Matrix (0018,1310: frequency rows, columns, phase rows, columns) with Rows and Columns."""
    matrix = elements.shorts(header.dataset, 0x00181310)
    if len(matrix) != 4:
        return None
    rows, columns = matrix[0] or matrix[2], matrix[1] or matrix[3]
    if not rows or not columns:
        return None
    return max(rows, columns) < max(header.layout.rows, header.layout.columns)
