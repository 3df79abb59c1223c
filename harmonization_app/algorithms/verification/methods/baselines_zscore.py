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
    corrected = np.empty_like(scans.values)
    for column in range(fitted.values.shape[1]):
        values = fitted.values[:, column]
        seen = ~np.isnan(values)
        squares, degrees = 0.0, 0
        own = {label: values[seen & (labels == label)] for label in set(labels.tolist())}
        for part in own.values():
            squares += float(np.sum((part - part.mean()) ** 2))
            degrees += len(part) - 1
        centre, common = float(values[seen].mean()), (squares / degrees) ** 0.5
        if specification.options.get("unit_free"):
            centre, common = 0.0, 1.0
        for label, part in own.items():
            rows = others == label
            standard = (scans.values[rows, column] - part.mean()) / part.std(ddof=1)
            corrected[rows, column] = standard * common + centre
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
