"""A run's result held against the plain second implementation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, Result
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, ChainResult
from harmonization_app.algorithms.design import select_features
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.methods import has_plain_method, plain_method
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
    if has_plain_method(model.algorithm):
        return _cross_check_method(dataset, result, tolerance_sd)
    if model.flags.get("unusable"):
        raise InvalidInput(
            "The cross-check does not cover features passed through for lack of observed scans."
        )
    columns = [dataset.features.index(name) for name in model.features]
    values = dataset.values[:, columns]
    batches = plain_batches(dataset, specification)
    covariates = plain_covariates(dataset, specification)
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


def cross_check_chain(
    dataset: Dataset, result: ChainResult, tolerance_sd: float = TOLERANCE_SD
) -> dict[str, CrossCheck]:
    """Return the cross-check of each step of a chain that was fitted on the raw `dataset`.

    `tolerance_sd` is that of the main method. Raises InvalidInput.
    """
    checks = {}
    if result.calibration is not None:
        checks[CALIBRATION] = cross_check(dataset, result.calibration)
    return {**checks, MAIN: cross_check(result.dataset, result.main, tolerance_sd)}


def _cross_check_method(dataset: Dataset, result: Result, tolerance_sd: float) -> CrossCheck:
    """Compute a result of another method than ComBat again by its own plain implementation."""
    model = result.model
    chosen = select_features(dataset, model.features)
    try:
        expected = plain_method(model.algorithm).correct(chosen, model.specification, chosen)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise InvalidInput(f"The plain implementation cannot compute this case: {error}.") from error
    difference = max_difference_sd(result.values, expected, chosen.values)
    return CrossCheck(difference, tolerance_sd, None, difference <= tolerance_sd)


def max_difference_sd(values: FloatArray, expected: FloatArray, raw: FloatArray) -> float:
    """Return the largest difference in population SD of the raw feature; infinity where only one side is
    missing.
    """
    if not np.array_equal(np.isnan(values), np.isnan(expected)):
        return float("inf")
    spread = np.nanstd(raw, axis=0)
    difference = np.abs(values - expected) / np.where(spread > 0, spread, 1.0)
    return float(np.nanmax(difference)) if np.isfinite(np.nanmax(difference)) else float("inf")
