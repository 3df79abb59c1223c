"""Measures de-identification: CPU milliseconds per instance of the engine and of the pydicom reference.

    python benchmarks/deid.py [FOLDER ...]

Each folder is one series; without folders, those of HUB_REFERENCE_DATA/dicom are taken, if it is set. A simulated
series comes first. The first number is the
whole of `Deidentifier.process` (reading, parameters, residual search, writing), the second adds SHA-256, the
third is the same profile applied with pydicom, without parameters and search.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hub.demo.simulator import simulate_mr
from sites_app.deid.engine import Deidentifier, InstanceRefused
from sites_app.deid.profile import DEFAULT_PROFILE
from sites_app.deid.reference import ReferenceDeidentifier

KEY = b"benchmark-key-of-thirty-two-byte"
ROUNDS = 3
REFERENCE_FILES = 20
SIMULATED_SLICES = 100


def milliseconds(work: Callable[[], None], count: int) -> float:
    """Return the best CPU time of a few rounds, per instance."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1000 / count


def accepted(files: list[bytes]) -> list[bytes]:
    engine = Deidentifier(DEFAULT_PROFILE, KEY, "S-1", -100, "T")
    kept = []
    for data in files:
        try:
            engine.process(data)
        except InstanceRefused:
            continue
        kept.append(data)
    return kept


def read_folder(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def measure(name: str, received: list[bytes]) -> None:
    files = accepted(received)
    if not files:
        return

    def engine() -> None:
        deidentifier = Deidentifier(DEFAULT_PROFILE, KEY, "S-1", -100, "T")
        for data in files:
            deidentifier.process(data)

    def hashed() -> None:
        deidentifier = Deidentifier(DEFAULT_PROFILE, KEY, "S-1", -100, "T")
        for data in files:
            hashlib.sha256(deidentifier.process(data).data).hexdigest()

    def reference() -> None:
        deidentifier = ReferenceDeidentifier(DEFAULT_PROFILE, KEY, "S-1", -100, lambda tag, text: text)
        for data in files[:REFERENCE_FILES]:
            deidentifier.process(data)

    times = milliseconds(engine, len(files)), milliseconds(hashed, len(files))
    slow = milliseconds(reference, min(len(files), REFERENCE_FILES))
    size = sum(map(len, files)) / len(files) / 1e6
    print(f"{name:44} {len(files):5} {size:6.2f} {times[0]:8.2f} {times[1]:8.2f} {slow:8.2f}")


def main() -> None:
    warnings.simplefilter("ignore")
    folders = [Path(argument) for argument in sys.argv[1:]]
    root = os.environ.get("HUB_REFERENCE_DATA", "")
    if not folders and root:
        folders = sorted(path for path in (Path(root) / "dicom").iterdir() if path.is_dir())
    print(f"{'CPU ms per instance':44} {'n':>5} {'MB':>6} {'engine':>8} {'+sha256':>8} {'pydicom':>8}")
    simulated = simulate_mr(slices=SIMULATED_SLICES, rows=256, columns=256)
    measure("simulated MR 256 x 256", [file.data for file in simulated.files])
    for folder in folders:
        measure(folder.name, read_folder(folder))


if __name__ == "__main__":
    main()
