"""Unwanted factors of scans: the first principal components of control features, which biology does not change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harmonization_app.algorithms.base import Arrays, Dataset, Finding, FloatArray
from harmonization_app.algorithms.design import feature_positions
from harmonization_app.diagnostics.wording import listed

# Singular values below this part of the largest are rounding.
RANK_RATIO = 1e-8


def learn_controls(own: FloatArray, factors: int) -> dict[str, FloatArray]:
    """Return centre and spread [controls] of the controls and the rotation [controls x factors] onto components."""
    centre, spread = own.mean(axis=0), own.std(axis=0, ddof=1)
    _, _, rotation = np.linalg.svd((own - centre) / spread, full_matrices=False)
    return {"centre": centre, "spread": spread, "rotation": rotation[:factors].T}


def control_factors(arrays: Arrays, dataset: Dataset) -> FloatArray:
    """Return the factors of scans [scans x factors]; `arrays` hold what `learn_controls` gave, and `controls`."""
    own = dataset.values[:, arrays["controls"]]
    return np.asarray(((own - arrays["centre"]) / arrays["spread"]) @ arrays["rotation"])


def lacking_controls(dataset: Dataset, names: Sequence[str]) -> list[Finding]:
    """Return a stop for control features that the dataset does not have."""
    lacking = tuple(name for name in names if name not in dataset.features)
    if not lacking:
        return []
    message = f"The control feature(s) {listed(lacking)} are not among the features."
    return [Finding("control_lacking", "stop", message, columns=lacking)]


def constant_controls(dataset: Dataset, names: Sequence[str]) -> list[Finding]:
    """Return a stop for control features with one value in all scans."""
    controls = feature_positions(dataset, names)
    flat = tuple(dataset.features[i] for i in controls if np.ptp(dataset.values[:, i]) == 0)
    if not flat:
        return []
    message = f"The control feature(s) {listed(flat)} have one value in all scans and show nothing."
    return [Finding("control_constant", "stop", message, columns=flat)]


def standardized(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0, ddof=1))


def rank(values: FloatArray) -> int:
    return int(np.linalg.matrix_rank(values, tol=RANK_RATIO * np.linalg.norm(values, 2)))
