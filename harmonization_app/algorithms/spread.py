"""Features whose spread floating point cannot hold."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding, IntArray
from harmonization_app.diagnostics.wording import listed

# Variances below this have lost digits: the least normal number is 2e-308.
LEAST_VARIANCE = 1e-290


def without_spread(dataset: Dataset, columns: IntArray) -> Finding | None:
    """Return a stop where the squares of varying features leave the range of numbers, so that they have no SD."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        variances = dataset.values[:, columns].var(axis=0)
    lost = ~(np.isfinite(variances) & (variances > LEAST_VARIANCE))
    if not lost.any():
        return None
    names = tuple(np.array(dataset.features)[columns[lost]].tolist())
    message = f"The values of {listed(names)} are too large or too small to compute with; give them in another unit."
    return Finding("spread_not_computable", "stop", message, columns=names)
