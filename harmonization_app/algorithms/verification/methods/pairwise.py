"""Pairwise ComBat as plain ComBat with a reference batch on each pair (Jodoin et al., Sci Rep 15:41508 (2025))."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import (
    Correction,
    correct_pools,
    fit_pools,
    named_iterations,
)


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`, pair by pair."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken. Raises ValueError without a reference batch."""
    if specification.reference_batch is None:
        raise ValueError("it needs a reference batch")
    reference = specification.reference_batch
    labels, others = (
        np.array(plain_batches(fitted, specification)),
        np.array(plain_batches(scans, specification)),
    )
    corrected = scans.values.copy()
    iterations: dict[str, Mapping[str, int]] = {}
    unchecked = np.zeros(len(fitted.features), dtype=bool)
    for batch in sorted(set(labels.tolist()) - {reference}):
        pair = fitted.select(np.flatnonzero((labels == batch) | (labels == reference)))
        design = plain_covariates(pair, specification)
        fit = fit_pools(pair, plain_batches(pair, specification), design, specification, reference)
        unchecked |= fit.unchecked
        iterations |= named_iterations(fit, batch)
        rows = np.flatnonzero(others == batch)
        own = plain_covariates(scans.select(rows), specification, pair)
        corrected[rows] = correct_pools(fit, scans.values[rows], [batch] * len(rows), own)
    return Correction(corrected, iterations, unchecked)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    plan = replace(PLAIN_SPECIFICATION, reference_batch="west")
    yield Input("reference_west", dataset, plan)
    yield Input("mean_only", dataset, replace(plan, mean_only=True))
    yield Input("without_eb", dataset, replace(plan, eb=False))
    yield Input("nonparametric", dataset, replace(plan, parametric=False))
    holes = np.random.default_rng(6).random(dataset.values.shape) < 0.04
    yield Input("missing_values", dataset.with_values(np.where(holes, np.nan, dataset.values)), plan)
    yield Input("apply_new_scans", dataset, plan, new)
