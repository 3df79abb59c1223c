"""Covariates coded by comparison of texts, apart from the kernel's own coding."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification


def plain_covariates(
    dataset: Dataset, specification: Specification, levels_of: Dataset | None = None
) -> FloatArray:
    """Return the covariates [scans x columns] in treatment coding; levels are those of `levels_of` if given."""
    columns = []
    for covariate in specification.covariates:
        values = dataset.covariates[covariate.name]
        if covariate.kind == "continuous":
            columns.append(np.array([float(value) for value in values]))  # type: ignore[arg-type]
            continue
        texts = np.array([plain_text(value) for value in values])
        seen = (levels_of or dataset).covariates[covariate.name]
        levels = sorted({plain_text(value) for value in seen})
        reference = covariate.reference if covariate.reference is not None else levels[0]
        columns += [(texts == level).astype(float) for level in levels if level != reference]
    return np.column_stack(columns) if columns else np.empty((len(dataset.rows), 0))


def plain_batches(dataset: Dataset, specification: Specification) -> list[str]:
    """Return one batch label per scan after the plan's merges."""
    merges = specification.merge_batches
    texts = [plain_text(label) for label in dataset.batches]
    return [merges.get(text, text) for text in texts]


def plain_text(value: object) -> str:
    """Return a level as text; a whole number reads alike as 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
