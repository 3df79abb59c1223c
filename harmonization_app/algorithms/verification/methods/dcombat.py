"""Pooled plain ComBat, which federated ComBat must equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import Correction, correct_pools, fit_pools


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on all rows of `fitted` together."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken."""
    design = plain_covariates(fitted, specification)
    reference = specification.reference_batch
    fit = fit_pools(fitted, plain_batches(fitted, specification), design, specification, reference)
    own = plain_covariates(scans, specification, fitted)
    values = correct_pools(fit, scans.values, plain_batches(scans, specification), own)
    return Correction(values, fit.iterations, fit.unchecked)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    levels = (Covariate("age", "continuous"), Covariate("sex", "categorical", "F", ("F", "M")))
    plan = replace(PLAIN_SPECIFICATION, covariates=levels)
    yield Input("default", dataset, plan)
    yield Input("without_covariates", dataset, replace(plan, covariates=()))
    yield Input("without_eb", dataset, replace(plan, eb=False))
    yield Input("nonparametric", dataset, replace(plan, parametric=False))
    yield Input("mean_only", dataset, replace(plan, mean_only=True))
    yield Input("reference_batch", dataset, replace(plan, reference_batch="south"))
    holes = np.random.default_rng(9).random(dataset.values.shape) < 0.05
    yield Input("missing_values", dataset.with_values(np.where(holes, np.nan, dataset.values)), plan)
    yield Input("apply_new_scans", dataset, plan, new)
