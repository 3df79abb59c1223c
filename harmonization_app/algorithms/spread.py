"""Features whose spread floating point cannot hold."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import BoolArray, Dataset, Finding, FloatArray
from harmonization_app.algorithms.least_squares import blocks
from harmonization_app.diagnostics.wording import listed

# Variances below this have lost digits: the least normal number is 2e-308.
LEAST_VARIANCE = 1e-290


def without_spread(dataset: Dataset) -> list[Finding]:
    """Return a stop where the squares of varying features leave the range of numbers, so that they have no SD.

    Missing cells are left out; a feature with one value everywhere is no case of it.
    """
    names = tuple(
        dataset.features[column]
        for block in blocks(dataset.values.shape[1], len(dataset.rows))
        for column in block.start + np.flatnonzero(_lost(dataset.values[:, block]))
    )
    if not names:
        return []
    message = f"The values of {listed(names)} are too large or too small to compute with; give them in another unit."
    return [Finding("spread_not_computable", "stop", message, columns=names)]


def _lost(values: FloatArray) -> BoolArray:
    """Return which columns vary without a variance that can be computed."""
    varying = np.fmin.reduce(values, axis=0, initial=np.inf) < np.fmax.reduce(values, axis=0, initial=-np.inf)
    lost = np.zeros(values.shape[1], dtype=np.bool_)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        variances = np.nanvar(values[:, varying], axis=0)
    lost[varying] = ~(np.isfinite(variances) & (variances > LEAST_VARIANCE))
    return lost
