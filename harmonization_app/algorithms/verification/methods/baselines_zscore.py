"""z-scores by batch, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` with each batch's mean and SD in `fitted` replaced by the common ones."""
    labels, others = (
        np.array(plain_batches(fitted, specification)),
        np.array(plain_batches(scans, specification)),
    )
    corrected = scans.values.copy()
    for column in range(fitted.values.shape[1]):
        values = fitted.values[:, column]
        seen = ~np.isnan(values)
        own = {label: values[seen & (labels == label)] for label in set(labels.tolist())}
        if min(len(part) for part in own.values()) < specification.minimum_scans:
            continue
        squares = sum(float(np.sum((part - part.mean()) ** 2)) for part in own.values())
        pooled = (squares / sum(len(part) - 1 for part in own.values())) ** 0.5
        centre, common = float(values[seen].mean()), pooled
        if specification.options.get("unit_free"):
            centre, common = 0.0, 1.0
        for label, part in own.items():
            rows = others == label
            # What has no spread in the batch keeps its scale there.
            spread = part.std(ddof=1) if part.min() < part.max() else pooled or 1.0
            corrected[rows, column] = (scans.values[rows, column] - part.mean()) / spread * common + centre
    return corrected


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    plan = replace(PLAIN_SPECIFICATION, covariates=(), eb=False)
    yield Input("units", dataset, plan)
    yield Input("unit_free", dataset, replace(plan, options={"unit_free": True}))
    holes = np.random.default_rng(9).random(dataset.values.shape) < 0.05
    yield Input("missing_values", dataset.with_values(np.where(holes, np.nan, dataset.values)), plan)
    yield Input("apply_new_scans", dataset, plan, new)
