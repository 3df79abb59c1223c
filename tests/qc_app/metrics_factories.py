"""Synthetic series whose image quality is known by construction, as Part 10 byte strings."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SOP_CLASS = {
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}


def make_dataset(
    pixels: NDArray[Any],
    *,
    modality: str = "MR",
    number: int = 1,
    position: Sequence[float] = (0, 0, 0),
    syntax: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> FileDataset:
    """Return one classic instance; attributes with value None are left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SOP_CLASS.get(modality, SOP_CLASS["MR"])
    meta.MediaStorageSOPInstanceUID = f"2.25.77.{number}"
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(
        None, {}, file_meta=meta, preamble=b"\0" * 128,
        is_implicit_VR=syntax == ImplicitVRLittleEndian, is_little_endian=syntax != ExplicitVRBigEndian,
    )  # fmt: skip
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.Modality, dataset.InstanceNumber = modality, number
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], list(position)
    dataset.PixelSpacing, dataset.SliceThickness = [1.5, 1.5], 3.0
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            dataset.pop(name, None)
        else:
            setattr(dataset, name, value)
    return dataset


def to_bytes(dataset: FileDataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def make_series(
    volume: NDArray[Any],
    *,
    spacing_mm: float = 3.0,
    modality: str = "MR",
    per_slice: Mapping[int, Mapping[str, Any]] | None = None,
    **attributes: Any,
) -> list[bytes]:
    """Return one instance a slice of (slices, rows, columns), at z = index x spacing_mm."""
    return [
        to_bytes(
            make_dataset(
                plane,
                modality=modality,
                number=index + 1,
                position=(0, 0, index * spacing_mm),
                **{**attributes, **(per_slice or {}).get(index, {})},
            )
        )
        for index, plane in enumerate(volume)
    ]


def compressed(dataset: FileDataset, syntax: str, frames: Sequence[bytes]) -> bytes:
    """Return the instance with its pixels replaced by encapsulated frames."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return to_bytes(dataset)


def rician_sphere(
    *,
    shape: tuple[int, int, int] = (24, 64, 64),
    radius: float = 0.7,
    signal: float = 1000.0,
    sigma: float = 20.0,
    seed: int = 7,
) -> NDArray[np.uint16]:
    """Return a magnitude image of a ball (radius as a fraction of the half field in plane) with Rician noise."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[-0.6 : 0.6 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    truth = np.where(x**2 + y**2 + z**2 <= radius**2, signal, 0.0)
    real, imaginary = rng.normal(0, sigma, (2, *shape))
    return np.hypot(truth + real, imaginary).round().astype(np.uint16)
