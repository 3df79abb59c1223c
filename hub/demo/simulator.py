"""Simulated DICOM series in memory: MR (classic and enhanced), CT, PET and secondary capture.

Everything is determined by the arguments; the seed feeds numpy's PCG64 generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hub.demo import phantom
from hub.demo.encoding import Key, SeriesEncoder
from hub.demo.enhanced import enhanced_mr
from hub.demo.headers import (
    CT_IMAGE,
    ENHANCED_MR_IMAGE,
    MR_IMAGE,
    PET_IMAGE,
    SECONDARY_CAPTURE,
    Acquisition,
    Equipment,
    Grid,
    classic_mr,
    common_header,
    ct_module,
    pet_module,
    pixel_module,
    plane,
)
from hub.demo.identifiers import make_identity
from hub.demo.phantom import ScannerEffect
from hub.demo.scanners import MATRIX_CT, MATRIX_MR, MATRIX_PET, PET_SLICES, SCANNERS

HEAD_FIELD_OF_VIEW_MM = 240.0
SIGNALS = {"t1": phantom.T1_SIGNAL, "flair": phantom.FLAIR_SIGNAL}
THICKNESS_MM = {"t1": 5.0, "flair": 7.0, "ct": 8.0, "pet": 6.0}


@dataclass(frozen=True, slots=True)
class Changes:
    """What a planted event changes in a series; indices count slices from 0, from below to above.

    `values` overrides elements of every instance, `at` of single slices, `removed` leaves elements out,
    `dropped` leaves slices out.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    at: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    dropped: tuple[int, ...] = ()


NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class SimulatedFile:
    """One Part 10 file with the name under which it is sent."""

    name: str
    data: bytes
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class SimulatedSeries:
    """The files of one series."""

    modality: str
    study_uid: str
    series_uid: str
    files: tuple[SimulatedFile, ...]


def default_acquisition(seed: int, series: str = "t1") -> Acquisition:
    """Return an acquisition of a subject named after the seed, on a fixed day."""
    identity = make_identity(f"benchmark {seed}", "benchmark", date(1955, 4, 17), "F")
    return Acquisition(identity, datetime(2025, 3, 3, 10, 15, 30), f"benchmark {seed}", series)


def equipment_of(site: str = "S01", modality: str = "MR", on: date = date(2025, 3, 3)) -> Equipment:
    """Return the state of a demonstration scanner on a day."""
    scanner = next(item for item in SCANNERS if item.site == site and item.modality == modality)
    epoch = scanner.epoch(on)
    return Equipment(
        scanner.manufacturer,
        scanner.model,
        scanner.serial,
        epoch.software_version,
        epoch.coil,
        scanner.field_strength_t,
    )


@lru_cache(maxsize=64)
def _labels(
    slices: int, rows: int, columns: int, atrophy: float, size: float, water: bool
) -> NDArray[np.uint8]:
    labels = (
        phantom.water_labels(slices, rows, columns)
        if water
        else phantom.head_labels(slices, rows, columns, atrophy, size)
    )
    labels.setflags(write=False)
    return labels


def _grid(slices: int, rows: int, columns: int, thickness_mm: float) -> Grid:
    return Grid(slices, rows, columns, HEAD_FIELD_OF_VIEW_MM / columns, thickness_mm, thickness_mm)


def _acquired(
    labels: NDArray[np.uint8], contrast: str, effect: ScannerEffect, seed: int
) -> NDArray[np.uint16]:
    return phantom.mr_volume(labels, SIGNALS[contrast], effect, np.random.default_rng(seed))


def simulate_mr(
    *,
    slices: int = 20,
    rows: int = MATRIX_MR,
    columns: int = MATRIX_MR,
    seed: int = 0,
    contrast: str = "t1",
    acquisition: Acquisition | None = None,
    equipment: Equipment | None = None,
    parameters: Mapping[str, Any] | None = None,
    effect: ScannerEffect = ScannerEffect(),
    thickness_mm: float | None = None,
    atrophy: float = 0.0,
    size: float = 1.0,
    water: bool = False,
    changes: Changes = NO_CHANGES,
) -> SimulatedSeries:
    """Return a classic MR series, one instance a slice, of a head (or a water cylinder) with noise."""
    acquisition = acquisition or default_acquisition(seed, contrast)
    equipment = equipment or equipment_of()
    parameters = dict(SCANNERS[0].sequences[contrast] if parameters is None else parameters)
    grid = _grid(slices, rows, columns, thickness_mm or THICKNESS_MM[contrast])
    volume = _acquired(_labels(slices, rows, columns, atrophy, size, water), contrast, effect, seed)
    header = {
        **common_header(acquisition, equipment, "MR", MR_IMAGE),
        **classic_mr(equipment, parameters, grid),
        **pixel_module(grid),
    }
    return _classic(acquisition, "MR", header, grid, volume, changes)


def simulate_enhanced_mr(
    *,
    slices: int = 20,
    rows: int = MATRIX_MR,
    columns: int = MATRIX_MR,
    seed: int = 0,
    contrast: str = "t1",
    acquisition: Acquisition | None = None,
    equipment: Equipment | None = None,
    parameters: Mapping[str, Any] | None = None,
    effect: ScannerEffect = ScannerEffect(),
    thickness_mm: float | None = None,
    atrophy: float = 0.0,
    size: float = 1.0,
    changes: Changes = NO_CHANGES,
) -> SimulatedSeries:
    """Return an enhanced MR series, one multi-frame instance; `changes.at` does not apply to frames."""
    acquisition = acquisition or default_acquisition(seed, contrast)
    equipment = equipment or equipment_of("S05")
    chosen = dict(SCANNERS[4].sequences[contrast] if parameters is None else parameters)
    chosen.update(changes.values)
    for keyword in changes.removed:
        chosen[keyword] = None
    grid = _grid(slices, rows, columns, thickness_mm or THICKNESS_MM[contrast])
    volume = _acquired(_labels(slices, rows, columns, atrophy, size, False), contrast, effect, seed)
    order = [index for index in range(slices) if index not in changes.dropped]
    header = {
        **common_header(acquisition, equipment, "MR", ENHANCED_MR_IMAGE),
        **enhanced_mr(equipment, chosen, grid, order, acquisition.taken),
        **pixel_module(grid),
    }
    uid = acquisition.instance_uid(1)
    own: dict[Key, Any] = {
        "SOPInstanceUID": uid,
        "InstanceNumber": 1,
        "PixelData": volume[order].tobytes(),
    }
    data = SeriesEncoder(header).instance(own)
    file = SimulatedFile(f"{acquisition.series}/IM00001.dcm", data, uid)
    return SimulatedSeries("MR", acquisition.study_uid, acquisition.series_uid, (file,))


def simulate_ct(
    *,
    slices: int = 12,
    rows: int = MATRIX_CT,
    columns: int = MATRIX_CT,
    seed: int = 0,
    acquisition: Acquisition | None = None,
    equipment: Equipment | None = None,
    parameters: Mapping[str, Any] | None = None,
    effect: ScannerEffect = ScannerEffect(1.0, 4.0, 0.0, 0.4),
    thickness_mm: float | None = None,
    size: float = 1.0,
    water: bool = False,
    changes: Changes = NO_CHANGES,
) -> SimulatedSeries:
    """Return a CT series of a head (or a water cylinder) in air, with stored values of HU + 1024."""
    acquisition = acquisition or default_acquisition(seed, "ct")
    equipment = equipment or equipment_of("S01", "CT")
    parameters = dict(SCANNERS[5].sequences["ct"] if parameters is None else parameters)
    grid = _grid(slices, rows, columns, thickness_mm or THICKNESS_MM["ct"])
    labels = _labels(slices, rows, columns, 0.0, size, water)
    volume = phantom.ct_volume(labels, effect.noise, effect.blur_px, np.random.default_rng(seed))
    header = {
        **common_header(acquisition, equipment, "CT", CT_IMAGE),
        **ct_module(parameters, grid),
        **pixel_module(grid, bits_stored=16),
    }
    return _classic(acquisition, "CT", header, grid, (volume + 1024).astype(np.uint16), changes)


def simulate_pet(
    *,
    slices: int = PET_SLICES,
    rows: int = MATRIX_PET,
    columns: int = MATRIX_PET,
    seed: int = 0,
    acquisition: Acquisition | None = None,
    equipment: Equipment | None = None,
    parameters: Mapping[str, Any] | None = None,
    dose_bq: float = 3.7e8,
    uptake_minutes: int = 60,
    noise: float = 0.1,
    size: float = 1.0,
    changes: Changes = NO_CHANGES,
) -> SimulatedSeries:
    """Return an FDG PET series in Bq/ml, decay corrected to its start, with one rescale slope a slice."""
    acquisition = acquisition or default_acquisition(seed, "pet")
    equipment = equipment or Equipment("SIEMENS", "Biograph mCT", "10880", "VG60A")
    grid = _grid(slices, rows, columns, THICKNESS_MM["pet"])
    suv = phantom.pet_volume(
        _labels(slices, rows, columns, 0.0, size, False), noise, np.random.default_rng(seed)
    )
    injected = acquisition.taken - timedelta(minutes=uptake_minutes)
    remaining = dose_bq * 2 ** (-uptake_minutes * 60 / 6586.2)
    activity = suv * remaining / (acquisition.weight_kg * 1000)
    slopes = np.maximum(activity.reshape(slices, -1).max(axis=1), 1.0) / 32767
    stored = np.rint(activity / slopes[:, None, None]).astype(np.uint16)
    header = {
        **common_header(acquisition, equipment, "PT", PET_IMAGE),
        **pet_module({"SeriesDescription": "PET FDG BRAIN", **(parameters or {})}, grid, injected, dose_bq),
        **pixel_module(grid, signed=True, bits_stored=16),
    }
    own = [{"RescaleSlope": float(slope), "ImageIndex": index + 1} for index, slope in enumerate(slopes)]
    return _classic(acquisition, "PT", header, grid, stored, changes, own)


def simulate_secondary_capture(*, acquisition: Acquisition | None = None, seed: int = 0) -> SimulatedSeries:
    """Return a screen capture that says it has burned-in annotation (PS3.3 C.8.6.1)."""
    acquisition = acquisition or default_acquisition(seed, "screen")
    grid = Grid(1, 64, 128, 1.0, 1.0, 1.0)
    pixels = np.zeros((64, 128), dtype=np.uint16)
    pixels[8:20, 8:120:3] = np.random.default_rng(seed).integers(2000, 4095, size=(12, 38))
    uid = acquisition.instance_uid(1)
    header = {
        **common_header(acquisition, Equipment("HUB DEMO", "Screen", "1", "1"), "OT", SECONDARY_CAPTURE),
        **pixel_module(grid),
        "ConversionType": "WSD",
        "BurnedInAnnotation": "YES",
        "SeriesDescription": "SCREEN SAVE",
        "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"],
    }
    own: dict[Key, Any] = {"SOPInstanceUID": uid, "InstanceNumber": 1, "PixelData": pixels.tobytes()}
    file = SimulatedFile(f"{acquisition.series}/SC00001.dcm", SeriesEncoder(header).instance(own), uid)
    return SimulatedSeries("OT", acquisition.study_uid, acquisition.series_uid, (file,))


def _classic(
    acquisition: Acquisition,
    modality: str,
    header: Mapping[Key, Any],
    grid: Grid,
    volume: NDArray[np.uint16],
    changes: Changes,
    own: Sequence[Mapping[str, Any]] = (),
) -> SimulatedSeries:
    encoder = SeriesEncoder({**header, "SeriesNumber": acquisition.number, **changes.values})
    files = []
    for index in range(grid.slices):
        if index in changes.dropped:
            continue
        uid = acquisition.instance_uid(index + 1)
        elements: dict[Key, Any] = {
            "SOPInstanceUID": uid,
            "InstanceNumber": index + 1,
            **plane(grid, index),
            **(own[index] if own else {}),
            "PixelData": volume[index].tobytes(),
            **changes.at.get(index, {}),
        }
        data = encoder.instance(elements, changes.removed)
        files.append(SimulatedFile(f"{acquisition.series}/IM{index + 1:05d}.dcm", data, uid))
    return SimulatedSeries(modality, acquisition.study_uid, acquisition.series_uid, tuple(files))


def total_bytes(series: SimulatedSeries) -> int:
    """Return the size of all files of a series."""
    return sum(len(file.data) for file in series.files)
