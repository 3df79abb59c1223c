"""A run's result held against the plain second implementation.

The plain code shares nothing with the fast one but the values that travel (dataset, specification, model fields); it
reads the table, codes covariates and picks pools by itself. Up to `pooled.FEATURE_BY_FEATURE_CELLS` cells it goes
feature by feature, above by blocks, every feature with the priors of all; only non-parametric priors over more than
2,000 features, and the search for variance ratios of large mixed models, are repeated for a seeded sample, which
`scope` tells.

Measured with one BLAS thread, 1,000 scans of 20 batches: 1,000 features feature by feature 1.1 s, 20,000 by blocks
1.6 s; without parametric priors 2,000 features 1.4 s. ComBat needs besides the table some blocks of 4 MB and arrays of
[batches x features]; other methods one copy of the table more, and their own time (z-score 20,000 features 14 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, Result
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, ChainResult
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.methods import has_plain_method, plain_method
from harmonization_app.algorithms.verification.plain import Bools, plain_correct
from harmonization_app.algorithms.verification.plain_blocks import blocks
from harmonization_app.algorithms.verification.pooled import Correction, fit_pools
from hub.core.errors import InvalidInput

TOLERANCE_SD = 1e-9
COMBAT = ("combat", "neurocombat")


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Largest difference from the plain implementation in feature SD, and whether steps of shrinkage
    agree; None where the method does not count steps or has none. `features_checked` of `features` were computed a
    second time; `scope` tells what was not, and is empty where all was.
    """

    max_difference_sd: float
    tolerance_sd: float
    iterations_equal: bool | None
    passed: bool
    features: int = 0
    features_checked: int = 0
    scope: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Expected:
    """Blocks of expected values by columns, with what is told about them."""

    parts: Iterator[tuple[slice, FloatArray]]
    iterations: Mapping[str, Mapping[str, int]] | None
    unchecked: Bools
    scope: str


def cross_check(dataset: Dataset, result: Result, tolerance_sd: float = TOLERANCE_SD) -> CrossCheck:
    """Compute a fitted-and-applied result again by plain least squares and compare.

    `dataset` is the one the model was fitted on and the result computed from. Raises InvalidInput where the plain
    implementation cannot compute the case, with the reason.
    """
    chosen = _chosen(dataset, result.model.features)
    try:
        expected = _expected(chosen, result.model)
        difference = _difference(result.values, chosen.values, expected)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise InvalidInput(f"The plain implementation cannot compute this case: {error}.") from error
    equal = _iterations_equal(result, expected)
    checked = int((~expected.unchecked).sum())
    return CrossCheck(
        difference,
        tolerance_sd,
        equal,
        equal is not False and difference <= tolerance_sd and checked > 0,
        len(chosen.features),
        checked,
        expected.scope,
    )


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


def max_difference_sd(values: FloatArray, expected: FloatArray, raw: FloatArray) -> float:
    """Return the largest difference in population SD of the raw feature; infinity where only one side is
    missing or either is not finite.
    """
    missing = np.isnan(expected)
    if values.shape != expected.shape or not np.array_equal(np.isnan(values), missing):
        return float("inf")
    columns = ~missing.all(axis=0)
    with np.errstate(invalid="ignore"):
        difference = np.abs(values[:, columns] - expected[:, columns]) / _spread(raw)[columns]
    present = difference[~missing[:, columns]]
    return float(present.max(initial=0.0)) if np.isfinite(present).all() else float("inf")


def _spread(raw: FloatArray) -> FloatArray:
    """Return each feature's SD; 1 for one without observed spread, whose SD may be rounding instead of 0."""
    seen = ~np.isnan(raw)
    varies = np.where(seen, raw, np.inf).min(axis=0) < np.where(seen, raw, -np.inf).max(axis=0)
    spread = np.ones(raw.shape[1])
    spread[varies] = np.nanstd(raw[:, varies], axis=0)
    return spread


def _chosen(dataset: Dataset, features: tuple[str, ...]) -> Dataset:
    """Return the dataset with the features of a model, in its order."""
    if features == dataset.features:
        return dataset
    position = {name: index for index, name in enumerate(dataset.features)}
    columns = [position[name] for name in features]
    units = tuple(dataset.units[column] for column in columns)
    return Dataset(
        dataset.values[:, columns], features, dataset.rows, dataset.batches, dataset.covariates, units
    )


def _expected(dataset: Dataset, model: Model) -> _Expected:
    algorithm, specification = model.algorithm, model.specification
    if algorithm in COMBAT:
        return _expected_combat(dataset, specification)
    if not has_plain_method(algorithm):
        raise ValueError(f"{algorithm} has no second implementation")
    method = plain_method(algorithm)
    if hasattr(method, "against"):
        found = method.against(dataset, model)
    elif hasattr(method, "compute"):
        found = method.compute(dataset, specification, dataset)
    else:
        found = Correction(method.correct(dataset, specification, dataset))
    unchecked = (
        found.unchecked if found.unchecked is not None else np.zeros(len(dataset.features), dtype=bool)
    )
    scope = " ".join(part for part in (found.scope, _sampled(unchecked, specification)) if part)
    parts = ((block, found.values[:, block]) for block in blocks(*found.values.shape))
    return _Expected(parts, found.iterations, unchecked, scope)


def _expected_combat(dataset: Dataset, specification: Specification) -> _Expected:
    batches, covariates = plain_batches(dataset, specification), plain_covariates(dataset, specification)
    fit = fit_pools(dataset, batches, covariates, specification, specification.reference_batch)

    def parts() -> Iterator[tuple[slice, FloatArray]]:
        for block in blocks(*dataset.values.shape):
            yield block, plain_correct(fit, np.asarray(dataset.values[:, block]), batches, covariates, block)

    return _Expected(parts(), fit.iterations, fit.unchecked, _sampled(fit.unchecked, specification))


def _sampled(unchecked: Bools, specification: Specification) -> str:
    if not unchecked.any():
        return ""
    checked = int((~unchecked).sum())
    return (
        f"{checked} of {len(unchecked)} features, drawn with seed {specification.seed}, were computed again, each "
        "with all the others as its prior."
    )


def _difference(values: FloatArray, raw: FloatArray, expected: _Expected) -> float:
    if values.shape != raw.shape:
        return float("inf")
    largest = 0.0
    for block, part in expected.parts:
        kept = ~expected.unchecked[block]
        own = max_difference_sd(values[:, block][:, kept], part[:, kept], raw[:, block][:, kept])
        largest = max(largest, own)
    return largest


def _iterations_equal(result: Result, expected: _Expected) -> bool | None:
    """Return whether steps agree by pool and batch; None where the method or its plain one counts none."""
    counted = {pool: dict(steps) for pool, steps in result.model.iterations.items() if steps}
    if not result.model.specification.eb or expected.iterations is None or not result.model.iterations:
        return None
    return counted == {pool: dict(steps) for pool, steps in expected.iterations.items() if steps}
