"""The out-of-core row of the harmonization benchmark: a file larger than the memory it may take."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.harmonization_engines import make_block, make_labels, make_subjects, peak_bytes

SCANS, FEATURES = 2_000, 1_000_000
MEMORY_LIMIT_BYTES = 4_000_000_000
ENGINE, FLOOR = "combat by blocks", "copy of the file"
COPY_BYTES = 16 << 20
DISTINCT_FEATURES = 32_768


def needed_bytes(features: int) -> int:
    """Return the disk the row takes: input and output."""
    return 2 * features * SCANS * 8 + (1 << 30)


def make_file(path: Path, features: int) -> None:
    """Write the table [features x scans], the layout in which a block is one run of the file.

    The noise repeats after some features, with an offset, so that making the file takes no longer than writing it.
    """
    subjects = make_subjects(SCANS)
    distinct = make_block(subjects, slice(0, min(DISTINCT_FEATURES, features))).T.copy()
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (features, SCANS)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, features, len(distinct)):
            (distinct[: features - start] + start / features).tofile(file)
        os.fsync(file.fileno())


def copy_file(source: Path, target: Path) -> float:
    """Return the seconds in which the file is read, written and made durable."""
    start = time.perf_counter()
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, COPY_BYTES)
        os.fsync(write.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def measure_file(source: Path, target: Path, features: int) -> dict[str, float]:
    """Return the seconds and the memory of harmonizing the file, with its progress on the error output."""
    from harmonization_app.algorithms import blocks

    subjects = make_subjects(SCANS)
    before = peak_bytes()
    labels, specification = make_labels(features, subjects)
    shown = time.monotonic()

    def progress(fraction: float, text: str) -> None:
        nonlocal shown
        if fraction in (0.0, 1.0) or time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"  {fraction:4.0%} {text}", file=sys.stderr, flush=True)

    table = blocks.open_npy(source, "features_first")
    start = time.perf_counter()
    blocks.harmonize_blocks(
        table, target, labels, specification, progress=progress, memory_limit_bytes=MEMORY_LIMIT_BYTES
    )
    seconds = time.perf_counter() - start
    table.close()
    target.unlink()
    return {
        "best_s": seconds,
        "input_bytes": features * SCANS * 8,
        "interpreter_bytes": before,
        "peak_bytes": peak_bytes(),
    }
