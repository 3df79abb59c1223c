"""The time of every harmonization method and of its diagnosis, in one process."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.harmonization_engines import SCANS, SITES, make_input

METHOD_FEATURES = 200
METHODS: dict[str, dict[str, Any]] = {
    "combat": {},
    "covbat": {},
    "combat-spline": {"options": {"splines": {"age": 4}}},
    "combat-gam": {"options": {"smooths": {"age": {"basis_size": 10}}}},
    "combat-robust": {},
    "dcombat": {},
    "pairwise": {"reference_batch": "site00"},
    "nested": {"covariates": [{"name": "age", "kind": "continuous"}], "batch_variables": ["sex", "group"]},
    "nested-search": {
        "covariates": [{"name": "age", "kind": "continuous"}],
        "batch_variables": ["sex", "group"],
    },
    # The input has no hidden grouping; the limits are lowered so that one is found in its noise.
    "gmm-combat": {"options": {"grouping": "batch", "minimum_share": 0.05, "minimum_gain": 0.01}},
    "functional-normalization": {"eb": False},
    "sva": {"eb": False, "options": {"factors_from": "residuals"}},
    "global-scaling": {"covariates": [], "eb": False},
    "z-score": {"covariates": [], "eb": False},
    "control-features": {"eb": False, "options": {"controls": [f"f{i}" for i in range(10)]}},
}


def time_methods(repeats: int) -> None:
    """Print the best time of each method and of its diagnosis."""
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
