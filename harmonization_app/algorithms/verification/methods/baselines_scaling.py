"""Global scaling by a polynomial fit of each batch's mean profile (Fortin et al., NeuroImage 161:149 (2017))."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import FeaturePool, Specification
from harmonization_app.algorithms.verification.coding import plain_batches
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import pool_columns


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` with the line of each batch and pool, as `fitted` shows it, taken out."""
    labels, others = np.array(plain_batches(fitted, specification)), plain_batches(scans, specification)
    corrected = scans.values.copy()
    counts = [(~np.isnan(fitted.values[labels == label])).sum(axis=0) for label in set(labels.tolist())]
    usable = np.min(counts, axis=0) >= specification.minimum_scans
    for pool in pool_columns(fitted, specification).values():
        columns = pool[usable[pool]]
        profiles = {}
        for label in sorted(set(labels.tolist())):
            own = fitted.values[labels == label]
            profiles[label] = [float(np.mean(own[~np.isnan(own[:, c]), c])) for c in columns.tolist()]
        common = np.mean(list(profiles.values()), axis=0)
        lines = {label: np.polyfit(common, profile, 1) for label, profile in profiles.items()}
        for row, label in enumerate(others):
            slope, offset = lines[label]
            corrected[row, columns] = (scans.values[row, columns] - offset) / slope
    return corrected


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    plan = replace(PLAIN_SPECIFICATION, covariates=(), eb=False)
    yield Input("one_pool", dataset, plan)
    pools = (FeaturePool("one", dataset.features[:5]), FeaturePool("two", dataset.features[5:]))
    yield Input("two_pools", dataset, replace(plan, pools=pools))
    yield Input("apply_new_scans", dataset, plan, new)
