"""Time ComBat here beside neuroCombat 0.2.12 and one copy of the data through memory.

Each measurement runs in its own process, once with one BLAS thread and once with the threads as installed:
    python benchmarks/harmonization.py [--large] [--methods] [--repeats N]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SCANS, SITES, SEED = 1_000, 20, 7
FEATURES, LARGE_FEATURES = 2_000, 20_000
ENGINES = ("copy", "combat fit+apply", "combat with gate", "neuroCombat 0.2.12")
METHOD_FEATURES = 200
METHODS: dict[str, dict[str, Any]] = {
    "combat": {},
    "covbat": {},
    "combat-spline": {"options": {"splines": {"age": 4}}},
    "dcombat": {},
    "pairwise": {"reference_batch": "site00"},
    "nested": {"covariates": [{"name": "age", "kind": "continuous"}], "batch_variables": ["sex", "group"]},
    "global-scaling": {"covariates": [], "eb": False},
    "z-score": {"covariates": [], "eb": False},
    "control-features": {"eb": False, "options": {"controls": [f"f{i}" for i in range(10)]}},
}
# Engines take turns, so that other work on the machine does not fall on one of them only.
ROUNDS = 3
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def make_input(features: int) -> tuple[Any, Any]:
    """Return a dataset [scans x features] in unsorted row order and its specification (three covariates)."""
    from harmonization_app.algorithms.base import Dataset
    from harmonization_app.algorithms.specification import Covariate, Specification

    random = np.random.default_rng(SEED)
    sites = random.permutation(np.arange(SCANS) % SITES)
    age, sex = random.uniform(20, 80, SCANS), random.integers(0, 2, SCANS)
    group = random.integers(0, 2, SCANS)
    values = random.normal(2.5, 0.2, (SCANS, features))
    values += random.normal(0, 0.1, (SITES, features))[sites]
    values -= np.outer(age - 50, random.normal(0.004, 0.001, features))
    dataset = Dataset(
        values,
        tuple(f"f{i}" for i in range(features)),
        tuple(f"s{i}" for i in range(SCANS)),
        tuple(f"site{i:02d}" for i in sites),
        {
            "age": tuple(age.tolist()),
            "sex": tuple("FM"[i] for i in sex),
            "group": tuple("AB"[i] for i in group),
        },
    )
    covariates = (
        Covariate("age", "continuous"),
        Covariate("sex", "categorical"),
        Covariate("group", "categorical"),
    )
    return dataset, Specification(covariates=covariates)


def prepare(engine: str, features: int) -> Callable[[], Any]:
    """Return the call to time; its input is ready."""
    dataset, specification = make_input(features)
    if engine == "copy":
        return dataset.values.copy
    if engine == "combat with gate":
        from harmonization_app.algorithms.combat import Combat

        return lambda: Combat().harmonize(dataset, specification).values
    if engine == "combat fit+apply":
        from harmonization_app.algorithms.combat import Combat

        algorithm = Combat()
        return lambda: algorithm.correct(algorithm.estimate(dataset, specification, ()), dataset, ()).values
    return _published(dataset)


def _published(dataset: Any) -> Callable[[], Any]:
    import pandas as pd
    from neuroCombat import neuroCombat

    table = pd.DataFrame({"site": dataset.batches, **dataset.covariates})
    values = np.ascontiguousarray(dataset.values.T)

    def run() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return neuroCombat(values, table, "site", ["sex", "group"], ["age"])["data"]

    return run


def measure(engine: str, features: int, repeats: int) -> None:
    """Print the best time (s) and the peak memory (MB) of this process as JSON."""
    call = prepare(engine, features)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"best_s": min(times), "peak_mb": peak_mb}))


def run_apart(engine: str, features: int, repeats: int, one_thread: bool) -> dict[str, float]:
    """Measure in a fresh process and return its figures."""
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    environment["PYTHONPATH"] = str(ROOT)
    if one_thread:
        environment |= dict.fromkeys(THREAD_VARIABLES, "1")
    command = [sys.executable, str(Path(__file__).resolve()), "--engine", engine]
    command += ["--features", str(features), "--repeats", str(repeats)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(output.stdout))


def compare(features: int, repeats: int) -> None:
    """Print the table for one number of features."""
    print(
        f"\n{features:,} features x {SCANS:,} scans x {SITES} sites, 3 covariates, best of {ROUNDS} x {repeats}"
    )
    print(
        f"{'engine':<22}{'1 thread':>12}{'installed':>12}{'speed-up 1t':>13}{'installed':>11}{'peak MB':>9}"
    )
    rounds = [
        {
            engine: [run_apart(engine, features, repeats, single) for single in (True, False)]
            for engine in ENGINES
        }
        for _ in range(ROUNDS)
    ]
    figures = {
        engine: [min((own[engine][at] for own in rounds), key=lambda item: item["best_s"]) for at in (0, 1)]
        for engine in ENGINES
    }
    published = figures["neuroCombat 0.2.12"]
    for engine, (single, installed) in figures.items():
        ratios = [
            other["best_s"] / own["best_s"] for other, own in zip(published, (single, installed), strict=True)
        ]
        print(
            f"{engine:<22}{single['best_s'] * 1e3:>9.1f} ms{installed['best_s'] * 1e3:>9.1f} ms"
            f"{ratios[0]:>12.1f}x{ratios[1]:>10.1f}x{single['peak_mb']:>9.0f}"
        )


def time_methods(repeats: int) -> None:
    """Print the best time of each method and of its diagnosis, in this process."""
    from harmonization_app.algorithms.environment import one_blas_thread
    from harmonization_app.algorithms.registry import get_algorithm

    dataset, _ = make_input(METHOD_FEATURES)
    print(
        f"\n{METHOD_FEATURES:,} features x {SCANS:,} scans x {SITES} sites, one BLAS thread, best of {repeats}"
    )
    print(f"{'method':<22}{'fit+apply':>12}{'diagnose':>12}")
    for name, changes in METHODS.items():
        algorithm, specification = get_algorithm(name), method_specification(changes)
        harmonize, diagnose = [], []
        with one_blas_thread():
            for _ in range(repeats):
                start = time.perf_counter()
                result = algorithm.harmonize(dataset, specification)
                between = time.perf_counter()
                algorithm.diagnose(dataset, specification, result)
                harmonize.append(between - start)
                diagnose.append(time.perf_counter() - between)
        print(f"{name:<22}{min(harmonize) * 1e3:>9.1f} ms{min(diagnose) * 1e3:>9.1f} ms")


def method_specification(changes: dict[str, Any]) -> Any:
    """Return the parameters of a method on the benchmark's input."""
    from harmonization_app.algorithms.specification import Specification

    document: dict[str, Any] = {
        "covariates": [
            {"name": "age", "kind": "continuous"},
            {"name": "sex", "kind": "categorical", "levels": ["F", "M"]},
        ]
    }
    return Specification.from_json({**document, **changes})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help=f"also {LARGE_FEATURES:,} features")
    parser.add_argument("--methods", action="store_true", help="time every method and its diagnosis instead")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--features", type=int, default=FEATURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        measure(options.engine, options.features, options.repeats)
        return
    if options.methods:
        time_methods(options.repeats)
        return
    compare(FEATURES, options.repeats)
    if options.large:
        compare(LARGE_FEATURES, min(options.repeats, 2))


if __name__ == "__main__":
    main()
