"""Compile the loops of a harmonization before they are needed: `python -m harmonization_app.algorithms.warm_up`.

Takes some seconds once for each version of hub, numba and processor; later processes load them from disk.
"""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.specification import Covariate, Specification

SCANS, FEATURES = 40, 16


def compile_loops() -> None:
    """Harmonize a small table, which calls every loop."""
    random = np.random.default_rng(0)
    dataset = Dataset(
        random.normal(size=(SCANS, FEATURES)),
        tuple(f"feature_{i}" for i in range(FEATURES)),
        tuple(f"scan_{i}" for i in range(SCANS)),
        tuple("AB"[i % 2] for i in range(SCANS)),
        {"age": tuple(random.normal(50, 10, SCANS).tolist())},
    )
    Combat().harmonize(dataset, Specification(covariates=(Covariate("age", "continuous"),)))


if __name__ == "__main__":
    compile_loops()
