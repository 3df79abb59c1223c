"""The engines of the harmonization benchmark, each run in a process of its own on the same made input.

Imports at the top are numpy's only: neuroHarmonize runs this file in an environment without the hub.
"""

from __future__ import annotations

import contextlib
import io
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SCANS, SITES, SEED = 1_000, 20, 7
COPY, FIT_APPLY, WHOLE = "copy", "combat fit+apply", "combat harmonize"
NEUROCOMBAT, NEUROHARMONIZE = "neuroCombat 0.2.12", "neuroHarmonize 2.5.2"
ENGINES = (COPY, FIT_APPLY, WHOLE, NEUROCOMBAT, NEUROHARMONIZE)
# Engines that take [features x scans]; the others take [scans x features].
BY_FEATURE = (NEUROCOMBAT,)
FEATURES_TOGETHER = 1_024


@dataclass(frozen=True)
class Subjects:
    """Site, age, sex and group of every scan, in unsorted order."""

    sites: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    group: np.ndarray


def make_subjects(scans: int = SCANS) -> Subjects:
    """Return `scans` scans of 20 sites of equal size."""
    random = np.random.default_rng(SEED)
    sites = random.permutation(np.arange(scans) % SITES)
    return Subjects(
        sites, random.uniform(20, 80, scans), random.integers(0, 2, scans), random.integers(0, 2, scans)
    )


def make_block(subjects: Subjects, columns: slice) -> np.ndarray:
    """Return the features `columns` [scans x features], with site, age and noise; the same for every engine."""
    random = np.random.default_rng((SEED, columns.start))
    width = columns.stop - columns.start
    values = random.normal(2.5, 0.2, (len(subjects.sites), width))
    values += random.normal(0, 0.1, (SITES, width))[subjects.sites]
    values -= np.outer(subjects.age - 50, random.normal(0.004, 0.001, width))
    return values


def make_values(features: int, subjects: Subjects, by_feature: bool) -> np.ndarray:
    """Return the table, made by blocks so that nothing of its size is made beside it."""
    shape = (features, len(subjects.sites)) if by_feature else (len(subjects.sites), features)
    values = np.empty(shape)
    for start in range(0, features, FEATURES_TOGETHER):
        columns = slice(start, min(start + FEATURES_TOGETHER, features))
        block = make_block(subjects, columns)
        if by_feature:
            values[columns] = block.T
        else:
            values[:, columns] = block
    return values


def make_labels(features: int, subjects: Subjects) -> Any:
    """Return the labels of the hub's tables and the parameters (three covariates)."""
    from harmonization_app.algorithms.specification import Covariate, Specification
    from harmonization_app.algorithms.table import Labels

    scans = len(subjects.sites)
    labels = Labels(
        tuple(f"f{i}" for i in range(features)),
        tuple(f"s{i}" for i in range(scans)),
        tuple(f"site{i:02d}" for i in subjects.sites),
        {
            "age": tuple(subjects.age.tolist()),
            "sex": tuple("FM"[i] for i in subjects.sex),
            "group": tuple("AB"[i] for i in subjects.group),
        },
    )
    covariates = (
        Covariate("age", "continuous"),
        Covariate("sex", "categorical"),
        Covariate("group", "categorical"),
    )
    return labels, Specification(covariates=covariates)


def make_input(features: int) -> tuple[Any, Any]:
    """Return a dataset [scans x features] and its specification."""
    from harmonization_app.algorithms.base import Dataset

    subjects = make_subjects()
    labels, specification = make_labels(features, subjects)
    values = make_values(features, subjects, by_feature=False)
    return Dataset(values, labels.features, labels.rows, labels.batches, labels.covariates), specification


def load(engine: str) -> None:
    """Import what the engine needs, with its compiled loops, so that its memory is counted as the interpreter's."""
    if engine in (FIT_APPLY, WHOLE):
        from harmonization_app.algorithms.warm_up import compile_loops

        compile_loops()
    elif engine == NEUROCOMBAT:
        import neuroCombat  # noqa: F401
    elif engine == NEUROHARMONIZE:
        import neuroHarmonize  # noqa: F401


def prepare(engine: str, features: int) -> tuple[Callable[[], Any], int]:
    """Return the call to time, its input ready in the form the engine takes, and the input's bytes."""
    subjects = make_subjects()
    size = features * len(subjects.sites) * 8
    if engine in (FIT_APPLY, WHOLE):
        return _combat(engine, features), size
    values = make_values(features, subjects, engine in BY_FEATURE)
    if engine == COPY:
        return values.copy, size
    return (_neurocombat if engine == NEUROCOMBAT else _neuroharmonize)(values, subjects), size


def _combat(engine: str, features: int) -> Callable[[], Any]:
    from harmonization_app.algorithms.blas import single_thread
    from harmonization_app.algorithms.combat import Combat

    dataset, specification = make_input(features)
    algorithm = Combat()
    if engine == WHOLE:
        return lambda: algorithm.harmonize(dataset, specification).values

    def fit_and_apply() -> Any:
        with single_thread():
            return algorithm.correct(algorithm.estimate(dataset, specification, ()), dataset, ()).values

    return fit_and_apply


def _neurocombat(values: np.ndarray, subjects: Subjects) -> Callable[[], Any]:
    import pandas as pd
    from neuroCombat import neuroCombat

    table = pd.DataFrame({name: getattr(subjects, name) for name in ("sites", "age", "sex", "group")})

    def run() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return neuroCombat(values, table, "sites", ["sex", "group"], ["age"])["data"]

    return run


def _neuroharmonize(values: np.ndarray, subjects: Subjects) -> Callable[[], Any]:
    import pandas as pd
    from neuroHarmonize import harmonizationLearn

    table = pd.DataFrame(
        {"SITE": subjects.sites, "age": subjects.age, "sex": subjects.sex, "group": subjects.group}
    )

    def run() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return harmonizationLearn(values, table)[1]

    return run


def measure(engine: str, features: int, repeats: int) -> dict[str, float]:
    """Return the best time, and the process' memory before the input and at its peak, in bytes."""
    load(engine)
    before = peak_bytes()
    call, size = prepare(engine, features)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {
        "best_s": min(times),
        "input_bytes": size,
        "interpreter_bytes": before,
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Return the largest resident size of this process so far.

    Linux counts the parent's size into ru_maxrss of a new process; the high-water mark of the memory map does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
