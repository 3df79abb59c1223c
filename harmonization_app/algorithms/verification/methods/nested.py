"""Nested ComBat as plain ComBat after plain ComBat (Horng et al., Sci Rep 12:4493 (2022))."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import CovariateValue, Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_covariates, plain_text
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import (
    Correction,
    correct_pools,
    fit_pools,
    named_iterations,
)


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`, variable after variable."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken. Raises ValueError where a step could not be computed for every feature."""
    learnt, values = fitted, scans.values
    design = plain_covariates(fitted, specification)
    own = plain_covariates(scans, specification, fitted)
    iterations: dict[str, Mapping[str, int]] = {}
    for name in specification.batch_variables:
        labels = [plain_text(value) for value in fitted.covariates[name]]
        fit = fit_pools(learnt, labels, design, specification, measured=fitted)
        if fit.unchecked.any():
            raise ValueError("every step needs every feature, too many for priors without parameters")
        values = correct_pools(fit, values, [plain_text(value) for value in scans.covariates[name]], own)
        learnt = learnt.with_values(correct_pools(fit, learnt.values, labels, design))
        iterations |= named_iterations(fit, name)
    return Correction(values, iterations)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = (_with_makers(table, seed) for table, seed in zip(case_input(), (7, 8), strict=True))
    plan = replace(PLAIN_SPECIFICATION, batch_variables=("maker", "kernel"))
    yield Input("two_variables", dataset, plan)
    yield Input("other_order", dataset, replace(plan, batch_variables=("kernel", "maker")))
    yield Input("without_eb", dataset, replace(plan, eb=False))
    yield Input("apply_new_scans", dataset, plan, new)


def _with_makers(dataset: Dataset, seed: int) -> Dataset:
    """Return the dataset with two planted batch variables that cross the sites."""
    random = np.random.default_rng(seed)
    maker, kernel = random.integers(0, 2, len(dataset.rows)), random.integers(0, 2, len(dataset.rows))
    effect = np.outer(maker, np.linspace(0.1, 0.3, dataset.values.shape[1]))
    effect += np.outer(kernel, np.linspace(-0.2, 0.1, dataset.values.shape[1]))
    labels: dict[str, tuple[CovariateValue, ...]] = {
        "maker": tuple("XY"[i] for i in maker),
        "kernel": tuple(kernel.tolist()),
    }
    values = (dataset.values + effect).round(4)
    return replace(dataset, values=values, covariates={**dataset.covariates, **labels})
