"""A run's result held against the plain second implementation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, Result
from harmonization_app.algorithms.verification.plain import plain_combat
from hub.core.errors import InvalidInput

TOLERANCE_SD = 1e-9


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Largest difference from the plain implementation in feature SD, and whether steps of shrinkage
    agree; None where the method does not count steps or has none.
    """

    max_difference_sd: float
    tolerance_sd: float
    iterations_equal: bool | None
    passed: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cross_check(dataset: Dataset, result: Result, tolerance_sd: float = TOLERANCE_SD) -> CrossCheck:
    """Compute a fitted-and-applied result again by plain least squares and compare.

    `dataset` is the one the model was fitted on and the result computed from. Raises InvalidInput for models
    with features passed through for lack of data, which the plain implementation does not know.
    """
    model = result.model
    specification = model.specification
    if model.flags.get("unusable"):
        raise InvalidInput(
            "The cross-check does not cover features passed through for lack of observed scans."
        )
    columns = [dataset.features.index(name) for name in model.features]
    values = dataset.values[:, columns]
    batches = [specification.merge_batches.get(str(label), str(label)) for label in dataset.batches]
    covariates = _covariates(dataset, result)
    expected = values.copy()
    pools = {pool.name: pool.features for pool in specification.pools} or {"all": model.features}
    equal: bool | None = True if specification.eb and model.iterations else None
    for name, features in pools.items():
        own = [model.features.index(feature) for feature in features]
        plain = plain_combat(
            values[:, own],
            batches,
            covariates,
            eb=specification.eb,
            parametric=specification.parametric,
            mean_only=specification.mean_only,
            reference=specification.reference_batch,
        )
        expected[:, own] = plain.values
        if equal is not None:
            equal = equal and dict(plain.iterations) == dict(model.iterations.get(name, {}))
    difference = max_difference_sd(result.values, expected, values)
    return CrossCheck(difference, tolerance_sd, equal, equal is not False and difference <= tolerance_sd)


def max_difference_sd(values: FloatArray, expected: FloatArray, raw: FloatArray) -> float:
    """Return the largest difference in population SD of the raw feature; infinity where only one side is
    missing.
    """
    if not np.array_equal(np.isnan(values), np.isnan(expected)):
        return float("inf")
    spread = np.nanstd(raw, axis=0)
    difference = np.abs(values - expected) / np.where(spread > 0, spread, 1.0)
    return float(np.nanmax(difference)) if np.isfinite(np.nanmax(difference)) else float("inf")


def _covariates(dataset: Dataset, result: Result) -> FloatArray:
    """Return the covariates coded afresh, by comparison of texts and not by the kernel's coding."""
    columns = []
    for covariate in result.model.specification.covariates:
        values = dataset.covariates[covariate.name]
        if covariate.kind == "continuous":
            columns.append(np.array([float(value) for value in values]))  # type: ignore[arg-type]
            continue
        texts = np.array([_text(value) for value in values])
        levels = sorted(set(texts.tolist()))
        reference = covariate.reference if covariate.reference is not None else levels[0]
        columns += [(texts == level).astype(float) for level in levels if level != reference]
    return np.column_stack(columns) if columns else np.empty((len(dataset.rows), 0))


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
