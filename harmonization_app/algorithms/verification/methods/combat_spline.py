"""ComBat on a natural spline basis that is built from truncated powers and mapped on the published basis's space.

The corrected values depend on the space the columns span and not on the columns, so another basis of the same
space must give the same result: here 1, x and the natural cubic truncated powers (Hastie, Tibshirani, Friedman,
The Elements of Statistical Learning, equation 5.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import Correction, correct_pools, fit_pools


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken."""
    design = _design(fitted, specification, fitted)
    reference = specification.reference_batch
    fit = fit_pools(fitted, plain_batches(fitted, specification), design, specification, reference)
    own = _design(scans, specification, fitted)
    values = correct_pools(fit, scans.values, plain_batches(scans, specification), own)
    return Correction(values, fit.iterations, fit.unchecked)


def _design(dataset: Dataset, specification: Specification, fitted: Dataset) -> FloatArray:
    splines = specification.options["splines"]
    rest = tuple(item for item in specification.covariates if item.name not in splines)
    parts = [plain_covariates(dataset, replace(specification, covariates=rest), fitted)]
    for name, degrees in splines.items():
        learnt = np.array(fitted.covariates[name], dtype=np.float64)
        knots = [float(np.quantile(learnt, i / degrees)) for i in range(degrees + 1)]
        parts.append(_truncated_powers(np.array(dataset.covariates[name], dtype=np.float64), knots))
    return np.hstack(parts)


def _truncated_powers(values: FloatArray, knots: list[float]) -> FloatArray:
    width = knots[-1] - knots[0]
    x = (values - knots[0]) / width
    at = [(knot - knots[0]) / width for knot in knots]

    def bent(k: int) -> FloatArray:
        return (np.maximum(x - at[k], 0) ** 3 - np.maximum(x - at[-1], 0) ** 3) / (at[-1] - at[k])

    return np.column_stack([x, *(bent(k) - bent(len(at) - 2) for k in range(len(at) - 2))])


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    plan = replace(PLAIN_SPECIFICATION, options={"splines": {"age": 4}})
    yield Input("four_degrees", dataset, plan)
    yield Input("two_degrees_without_eb", dataset, replace(plan, eb=False, options={"splines": {"age": 2}}))
    yield Input("reference_batch", dataset, replace(plan, reference_batch="south"))
    holes = np.random.default_rng(5).random(dataset.values.shape) < 0.04
    holed = dataset.with_values(np.where(holes, np.nan, dataset.values))
    yield Input("missing_values", holed, plan)
    yield Input("apply_new_scans_beyond_the_knots", dataset, plan, new)
