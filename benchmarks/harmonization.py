"""Time ComBat beside neuroCombat 0.2.12, neuroHarmonize 2.5.2 and one copy of the data through memory.

    python benchmarks/harmonization.py [--quick] [--methods] [--folder FOLDER]

Each measurement runs in its own process, with one BLAS thread and with the threads as installed; engines take turns.
Sizes: 2,000, 20,000 and 200,000 features x 1,000 scans x 20 sites in memory, and 1,000,000 x 2,000 x 20 from a file
under 4 GB of memory (34 GB of disk). `--quick` stops after 20,000. neuroHarmonize pins other versions of numpy and
pandas and gets an environment of its own under FOLDER (var/bench/harmonization), as neuroharmonize.txt says.
Exit code 1 when a target was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import harmonization_file as file_row  # noqa: E402
from benchmarks.harmonization_engines import (  # noqa: E402
    COPY,
    ENGINES,
    FIT_APPLY,
    NEUROCOMBAT,
    NEUROHARMONIZE,
    SCANS,
    SITES,
    WHOLE,
    measure,
)
from benchmarks.harmonization_table import (  # noqa: E402
    INSTALLED,
    SINGLE,
    Figures,
    memory_over_input,
    print_load,
    print_table,
)

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PINNED = ROOT / "benchmarks" / "neuroharmonize.txt"
GIGABYTE = 1e9


@dataclass(frozen=True)
class Size:
    """How often a size is measured: rounds of turns, repeats within a process (of the published packages less often),
    and which engines only once.
    """

    features: int
    rounds: int
    repeats: int
    published_repeats: int = 1
    once: tuple[str, ...] = ()


SIZES = (
    Size(2_000, 3, 10, 3),
    Size(20_000, 3, 7, 2),
    Size(200_000, 3, 3, once=(NEUROCOMBAT, NEUROHARMONIZE)),
)
LONGEST_AS_INSTALLED = 20_000


def run_apart(command: list[str], one_thread: bool) -> Figures:
    """Measure in a fresh process, whose errors are shown, and return its figures."""
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    if one_thread:
        environment |= dict.fromkeys(THREAD_VARIABLES, "1")
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(output.stdout.splitlines()[-1]))


def compare(size: Size, pythons: dict[str, str]) -> bool:
    """Print the table of one size; return whether its targets were reached."""
    print(f"\n{size.features:,} features x {SCANS:,} scans x {SITES} sites, 3 covariates", flush=True)
    print_load()
    modes = (SINGLE, INSTALLED) if size.features <= LONGEST_AS_INSTALLED else (SINGLE,)
    figures: dict[tuple[str, str], Figures] = {}
    for turn in range(size.rounds):
        for engine, python in pythons.items():
            if engine in size.once and turn:
                continue
            published = engine in (NEUROCOMBAT, NEUROHARMONIZE)
            repeats = size.published_repeats if published else size.repeats
            for threads in modes:
                command = [python, str(Path(__file__).resolve()), "--engine", engine]
                command += ["--features", str(size.features), "--repeats", str(repeats)]
                own = run_apart(command, threads == SINGLE)
                known = figures.get((engine, threads))
                if known is None or own["best_s"] < known["best_s"]:
                    figures[engine, threads] = own
    reached = print_table(size.features, dict(sorted(figures.items(), key=_order)))
    print_load()
    return reached


def _order(item: tuple[tuple[str, str], Figures]) -> tuple[int, int]:
    (engine, threads), _ = item
    return (SINGLE, INSTALLED).index(threads), ENGINES.index(engine)


def compare_file(folder: Path, features: int = file_row.FEATURES) -> bool:
    """Print the out-of-core row; return whether it kept to its memory. Skipped, said so, where disk lacks."""
    print(f"\n{features:,} features x {file_row.SCANS:,} scans x {SITES} sites, from a file", flush=True)
    free, needed = shutil.disk_usage(folder).free, file_row.needed_bytes(features)
    if free < needed:
        print(f"  skipped: {needed / GIGABYTE:.0f} GB of disk needed in {folder}, {free / GIGABYTE:.0f} free")
        return True
    source, target = folder / "features.npy", folder / "harmonized.npy"
    for path in (source, target):
        path.unlink(missing_ok=True)
    print_load()
    try:
        file_row.make_file(source, features)
        floor = file_row.copy_file(source, target)
        command = [sys.executable, str(Path(__file__).resolve()), "--engine", file_row.ENGINE]
        own = run_apart([*command, "--features", str(features), "--folder", str(folder)], one_thread=True)
        floor = min(floor, file_row.copy_file(source, target))
    finally:
        source.unlink(missing_ok=True)
    reached = own["peak_bytes"] <= file_row.MEMORY_LIMIT_BYTES
    print(f"  {file_row.FLOOR:<22}{floor:>9.1f} s  ({own['input_bytes'] / GIGABYTE:.0f} GB read and written)")
    print(
        f"  {file_row.ENGINE:<22}{own['best_s']:>9.1f} s  {own['best_s'] / floor:.1f} copies, peak "
        f"{own['peak_bytes'] / GIGABYTE:.2f} GB ({memory_over_input(own):.2f} of the input): "
        f"{'reached' if reached else 'MISSED'}: {file_row.MEMORY_LIMIT_BYTES / GIGABYTE:g} GB"
    )
    print_load()
    return reached


def make_environment(folder: Path) -> Path | None:
    """Return the interpreter of neuroHarmonize's own environment, made where it lacks; None, said why, without one."""
    home = folder / "neuroharmonize"
    python, stamp = home / "bin" / "python", home / "pinned.txt"
    if stamp.exists() and stamp.read_text() == PINNED.read_text():
        return python
    shutil.rmtree(home, ignore_errors=True)
    print(f"making the environment of neuroHarmonize in {home}", flush=True)
    try:
        venv.create(home, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"  neuroHarmonize is left out: its environment could not be made: {error}")
        return None
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        str(PINNED),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"  neuroHarmonize is left out: its packages could not be installed: {last}")
        return None
    stamp.write_text(PINNED.read_text())
    return python


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only the two small sizes")
    parser.add_argument("--methods", action="store_true", help="time every method and its diagnosis instead")
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "bench" / "harmonization")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--features", type=int, default=SIZES[0].features, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine == file_row.ENGINE:
        source, target = options.folder / "features.npy", options.folder / "harmonized.npy"
        print(json.dumps(file_row.measure_file(source, target, options.features)))
        return 0
    if options.engine:
        print(json.dumps(measure(options.engine, options.features, options.repeats)))
        return 0
    if options.methods:
        from benchmarks.harmonization_methods import time_methods

        time_methods(options.repeats)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    pythons = dict.fromkeys((COPY, FIT_APPLY, WHOLE, NEUROCOMBAT), sys.executable)
    own = make_environment(options.folder)
    if own is not None:
        pythons[NEUROHARMONIZE] = str(own)
    sizes = SIZES[:2] if options.quick else SIZES
    reached = [compare(size, pythons) for size in sizes]
    if not options.quick:
        reached.append(compare_file(options.folder))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
