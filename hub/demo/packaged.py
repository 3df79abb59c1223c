"""Real DICOM files that installed Python packages carry, grouped by patient and series, for the upload.

Only files that are there are used; pydicom's download of further test data is never asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from hub.demo.cohort import TEST_VISIT
from hub.demo.simulator import SimulatedFile

CORE_SITE = "S90"
MODALITIES = ("MR", "CT")

_PYDICOM_TEST_FILES = "data/test_files"
_PATHS: tuple[str, ...] = (
    "MR_small.dcm",
    "CT_small.dcm",
    "examples_overlay.dcm",
    "693_J2KI.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "dicomdirtests/98892003/*/*",
    "dicomdirtests/98892001/*/*",
    "dicomdirtests/77654033/CT2/*",
)
"""MR and CT images as scanners made them; re-encodings of the same image are left out."""


@dataclass(frozen=True, slots=True)
class PackagedSeries:
    """What a real series says of itself; an empty text means that the file does not say it."""

    patient: str
    study_uid: str
    series_uid: str
    modality: str
    manufacturer: str
    model: str
    files: tuple[SimulatedFile, ...]


@dataclass(frozen=True, slots=True)
class PackagedSubmission:
    """All real series of one patient, sent by the core laboratory as a test scan."""

    site: str
    subject: str
    visit: str
    series: Mapping[str, tuple[SimulatedFile, ...]]
    contents: tuple[PackagedSeries, ...]


def _package_root() -> Path | None:
    spec = find_spec("pydicom")
    return Path(spec.origin).parent / _PYDICOM_TEST_FILES if spec is not None and spec.origin else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        return None
    texts = {
        keyword: str(dataset.get(keyword) or "")
        for keyword in (
            "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality",
            "Manufacturer", "ManufacturerModelName",
        )
    }  # fmt: skip
    usable = texts["Modality"] in MODALITIES and texts["SeriesInstanceUID"] and texts["PatientID"]
    return {**texts, "path": path} if usable and dataset.get("Rows") else None


@cache
def packaged_series() -> tuple[PackagedSeries, ...]:
    """Return the real series in installed packages, ordered by patient and series UID."""
    root = _package_root()
    if root is None or not root.is_dir():
        return ()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pattern in _PATHS:
        for path in sorted(root.glob(pattern)):
            facts = _read(path)
            if facts is not None:
                found.setdefault((facts["PatientID"], facts["SeriesInstanceUID"]), []).append(facts)
    return tuple(_series(items) for _, items in sorted(found.items()))


def _series(items: list[dict[str, Any]]) -> PackagedSeries:
    first = items[0]
    folder = first["SeriesInstanceUID"].rsplit(".", 2)
    name = f"{first['Modality'].lower()}-{'-'.join(folder[1:])}"
    files = tuple(
        SimulatedFile(f"{name}/{item['path'].name}", item["path"].read_bytes(), item["SOPInstanceUID"])
        for item in items
    )
    return PackagedSeries(
        first["PatientID"],
        first["StudyInstanceUID"],
        first["SeriesInstanceUID"],
        first["Modality"],
        first["Manufacturer"],
        first["ManufacturerModelName"],
        files,
    )


@cache
def packaged_submissions() -> tuple[PackagedSubmission, ...]:
    """Return one submission per patient of the packaged files."""
    patients: dict[str, list[PackagedSeries]] = {}
    for series in packaged_series():
        patients.setdefault(series.patient, []).append(series)
    return tuple(
        PackagedSubmission(
            CORE_SITE,
            f"{CORE_SITE}-{number:03d}",
            TEST_VISIT,
            {item.files[0].name.split("/")[0]: item.files for item in contents},
            tuple(contents),
        )
        for number, (_, contents) in enumerate(sorted(patients.items()), start=1)
    )
