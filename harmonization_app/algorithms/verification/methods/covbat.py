"""CovBat in the order of the paper's section 2.3 (Chen et al., Hum Brain Mapp 43:1179 (2022))."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import FeaturePool, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.plain import plain_apply, plain_combat


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`, pool by pool."""
    pools = [pool.features for pool in specification.pools] or [fitted.features]
    corrected = np.empty_like(scans.values)
    for features in pools:
        columns = [fitted.features.index(name) for name in features]
        corrected[:, columns] = _pool(fitted, specification, scans, columns)
    return corrected


def _pool(fitted: Dataset, specification: Specification, scans: Dataset, columns: list[int]) -> FloatArray:
    labels, others = plain_batches(fitted, specification), plain_batches(scans, specification)
    design = plain_covariates(fitted, specification)
    own_design = plain_covariates(scans, specification, fitted)
    first = plain_combat(
        fitted.values[:, columns],
        labels,
        design,
        eb=specification.eb,
        parametric=specification.parametric,
        mean_only=specification.mean_only,
    )
    fits = [first.parameters["fits"][column] for column in range(len(columns))]
    deviations = np.array([fit["sd"] for fit in fits])

    def predict(covariates: FloatArray) -> FloatArray:
        return np.column_stack([fit["grand_mean"] + covariates @ fit["slopes"] for fit in fits])

    learnt = (first.values - predict(design)) / deviations
    adjusted = plain_apply(first, scans.values[:, columns], others, own_design)
    residuals = (adjusted - predict(own_design)) / deviations
    middle = learnt.mean(axis=0)
    spread = learnt.std(axis=0, ddof=1) if specification.options.get("standardize", True) else 1.0
    eigenvalues, vectors = np.linalg.eigh(np.cov(((learnt - middle) / spread).T))
    order = np.argsort(eigenvalues)[::-1]
    eigenvalues, vectors = np.maximum(eigenvalues[order], 0), vectors[:, order]
    share = np.cumsum(eigenvalues) / eigenvalues.sum()
    kept = int(np.flatnonzero(share > specification.options.get("percent_variance", 0.95))[0]) + 1
    learnt_scores = ((learnt - middle) / spread) @ vectors
    former = ((residuals - middle) / spread) @ vectors
    scores = former.copy()
    second = plain_combat(learnt_scores[:, :kept], labels, np.empty((len(labels), 0)), eb=False)
    scores[:, :kept] = plain_apply(second, scores[:, :kept], others, np.empty((len(others), 0)))
    # Only what the scores changed is put back, so that what lies outside the components is left as it was.
    change = (scores - former) @ vectors.T
    return np.asarray(
        ((residuals - middle) / spread + change) * spread * deviations + middle * deviations
    ) + predict(own_design)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    yield Input("default", dataset, PLAIN_SPECIFICATION)
    yield Input("without_covariates", dataset, replace(PLAIN_SPECIFICATION, covariates=()))
    yield Input("without_eb", dataset, replace(PLAIN_SPECIFICATION, eb=False))
    options = {"percent_variance": 0.6, "standardize": False}
    yield Input("few_components", dataset, replace(PLAIN_SPECIFICATION, options=options))
    half = len(dataset.features) // 2
    pools = (FeaturePool("one", dataset.features[:half]), FeaturePool("two", dataset.features[half:]))
    yield Input("pools", dataset, replace(PLAIN_SPECIFICATION, pools=pools))
    yield Input("apply_new_scans", dataset, PLAIN_SPECIFICATION, new)
