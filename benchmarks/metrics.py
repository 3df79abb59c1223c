"""Time the quality layer on one synthetic MR series: python -m benchmarks.metrics [slices] [matrix] [repeats]

Prints one JSON line: the median CPU seconds of loading, of all metrics and of the preview, one thread.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from qc_app.metrics.compute import compute_metrics
from qc_app.metrics.pixels import load_series
from qc_app.metrics.preview import render_preview

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def synthetic_series(slices: int, matrix: int) -> list[bytes]:
    """Return a noisy ball of `slices` x `matrix` x `matrix` as classic MR instances."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : matrix * 1j, -1 : 1 : matrix * 1j]
    instances = []
    for index, z in enumerate(np.linspace(-0.9, 0.9, slices)):
        signal = np.where(x**2 + y**2 + z**2 < 0.64, 1000.0, 0.0)
        real, imaginary = rng.normal(0, 20, (2, matrix, matrix))
        instances.append(_instance(np.hypot(signal + real, imaginary).round().astype(np.uint16), index))
    return instances


def _instance(plane: np.ndarray[Any, Any], index: int) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MR_IMAGE_STORAGE, f"2.25.{index + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR_IMAGE_STORAGE, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.InstanceNumber, dataset.InPlanePhaseEncodingDirection = "MR", index + 1, "COL"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, float(index)]
    dataset.PixelSpacing, dataset.Rows, dataset.Columns = [1, 1], *plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = plane.tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median CPU seconds of `repeats` calls."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return round(statistics.median(taken), 4)


def main() -> None:
    slices, matrix, repeats = (
        int(value) for value in [*sys.argv[1:], *("200", "256", "5")[len(sys.argv) - 1 :]]
    )
    instances = synthetic_series(slices, matrix)
    pixels = load_series(instances)
    result = {
        "slices": slices,
        "matrix": matrix,
        "load_s": cpu_seconds(lambda: load_series(instances), repeats),
        "metrics_s": cpu_seconds(lambda: compute_metrics(load_series(instances)), repeats),
        "preview_s": cpu_seconds(lambda: render_preview(pixels), repeats),
    }
    result["metrics_s"] = round(float(result["metrics_s"]) - float(result["load_s"]), 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
