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

from collections.abc import Iterator, Mapping, Sequence
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
from harmonization_app.algorithms.verification.pooled import Correction, add_plain_batch, fit_pools
from hub.core.errors import InvalidInput

TOLERANCE_SD = 1e-9
COMBAT = ("combat", "neurocombat", "dcombat")
# Methods in which an added batch is a fit of its own beside the others.
PAIRS = ("pairwise",)


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
    return cross_check_applied(dataset, dataset, result, tolerance_sd)


def cross_check_applied(
    fitted: Dataset,
    scans: Dataset,
    result: Result,
    tolerance_sd: float = TOLERANCE_SD,
    added: Sequence[Dataset] = (),
) -> CrossCheck:
    """Compute again how `scans` were corrected by a model that was fitted on `fitted`.

    `added` holds the scans of each batch that was added to the model, in that order. Differences are in SD of the
    fitted features. Raises InvalidInput where the plain implementation cannot compute the case, with the reason.
    """
    model = result.model
    learnt = _chosen(fitted, model.features)
    given = learnt if scans is fitted else _chosen(scans, model.features)
    try:
        expected = _expected(learnt, given, model, [_chosen(table, model.features) for table in added])
        difference = _difference(result.values, learnt.values, expected, len(given.rows))
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise InvalidInput(f"The plain implementation cannot compute this case: {error}.") from error
    equal = _iterations_equal(result, expected)
    checked = int((~expected.unchecked).sum())
    passed = equal is not False and difference <= tolerance_sd and checked > 0
    return CrossCheck(difference, tolerance_sd, equal, passed, len(model.features), checked, expected.scope)


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
    missing, either is not finite, or the spread is beyond the range of numbers.
    """
    missing = np.isnan(expected)
    if values.shape != expected.shape or not np.array_equal(np.isnan(values), missing):
        return float("inf")
    columns = ~missing.all(axis=0)
    spread = _spread(raw)[columns]
    if not np.isfinite(spread).all():
        return float("inf")
    with np.errstate(invalid="ignore"):
        difference = np.abs(values[:, columns] - expected[:, columns]) / spread
    present = difference[~missing[:, columns]]
    return float(present.max(initial=0.0)) if np.isfinite(present).all() else float("inf")


def _spread(raw: FloatArray) -> FloatArray:
    """Return each feature's SD; 1 for one without observed spread, whose SD may be rounding instead of 0."""
    seen = ~np.isnan(raw)
    varies = np.where(seen, raw, np.inf).min(axis=0) < np.where(seen, raw, -np.inf).max(axis=0)
    spread = np.ones(raw.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
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


def _expected(fitted: Dataset, scans: Dataset, model: Model, added: Sequence[Dataset]) -> _Expected:
    algorithm, specification = model.algorithm, model.specification
    if len(added) != len(model.facts.get("added_batches", ())):
        raise ValueError("the scans of the batches added to the model are needed")
    if algorithm in COMBAT:
        return _expected_combat(fitted, scans, specification, added)
    if not has_plain_method(algorithm):
        raise ValueError(f"{algorithm} has no second implementation")
    if added and algorithm not in PAIRS:
        raise ValueError(f"a batch added to a model of {algorithm} has no second implementation")
    for table in added:
        fitted = _joined(fitted, table)
    method = plain_method(algorithm)
    if hasattr(method, "against"):
        found = method.against(fitted, model, scans)
    elif hasattr(method, "compute"):
        found = method.compute(fitted, specification, scans)
    else:
        found = Correction(method.correct(fitted, specification, scans))
    nothing = np.zeros(len(fitted.features), dtype=bool)
    unchecked = nothing if found.unchecked is None else found.unchecked
    scope = " ".join(part for part in (found.scope, _sampled(unchecked, specification)) if part)
    parts = ((block, found.values[:, block]) for block in blocks(*found.values.shape))
    return _Expected(parts, found.iterations, unchecked, scope)


def _expected_combat(
    fitted: Dataset, scans: Dataset, specification: Specification, added: Sequence[Dataset]
) -> _Expected:
    batches, covariates = plain_batches(fitted, specification), plain_covariates(fitted, specification)
    fit = fit_pools(fitted, batches, covariates, specification, specification.reference_batch)
    for table in added:
        fit = add_plain_batch(fit, table, plain_covariates(table, specification, fitted), specification)
    if scans is not fitted:
        batches = plain_batches(scans, specification)
        covariates = plain_covariates(scans, specification, fitted)

    def parts() -> Iterator[tuple[slice, FloatArray]]:
        for block in blocks(*scans.values.shape):
            yield block, plain_correct(fit, np.asarray(scans.values[:, block]), batches, covariates, block)

    return _Expected(parts(), fit.iterations, fit.unchecked, _sampled(fit.unchecked, specification))


def _joined(first: Dataset, second: Dataset) -> Dataset:
    """Return the scans of both, with the columns that both have."""
    covariates = {
        name: (*column, *second.covariates[name])
        for name, column in first.covariates.items()
        if name in second.covariates
    }
    return Dataset(
        np.vstack([first.values, second.values]),
        first.features,
        (*first.rows, *second.rows),
        (*first.batches, *second.batches),
        covariates,
        first.units,
    )


def _sampled(unchecked: Bools, specification: Specification) -> str:
    if not unchecked.any():
        return ""
    checked = int((~unchecked).sum())
    return (
        f"{checked} of {len(unchecked)} features, drawn with seed {specification.seed}, were computed again, each "
        "with all the others as its prior."
    )


def _difference(values: FloatArray, raw: FloatArray, expected: _Expected, scans: int) -> float:
    if values.shape != (scans, raw.shape[1]):
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
