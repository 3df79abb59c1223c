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
from harmonization_app.algorithms.verification.plain import plain_apply, plain_combat, plain_fitted
from harmonization_app.algorithms.verification.pooled import (
    Correction,
    correct_pools,
    fit_pools,
    pool_columns,
)


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`, pool by pool."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with ComBat's steps. Raises ValueError where ComBat could not be computed for every feature."""
    labels, others = plain_batches(fitted, specification), plain_batches(scans, specification)
    design, own = plain_covariates(fitted, specification), plain_covariates(scans, specification, fitted)
    fit = fit_pools(fitted, labels, design, specification)
    if fit.unchecked.any():
        raise ValueError("the components need every feature, too many for priors without parameters")
    corrected = correct_pools(fit, scans.values, others, own)
    # Residuals in pooled SD, of the fitted scans and of those to correct.
    learnt = (correct_pools(fit, fitted.values, labels, design) - plain_fitted(fit, design)) / fit.sd
    residuals = (corrected - plain_fitted(fit, own)) / fit.sd
    for columns in pool_columns(fitted, specification).values():
        varying = columns[~fit.left_out[columns]]
        change = _score_change(learnt[:, varying], residuals[:, varying], (labels, others), specification)
        corrected[:, varying] += change * fit.sd[varying]
    return Correction(corrected, fit.iterations)


def _score_change(
    learnt: FloatArray,
    residuals: FloatArray,
    labels: tuple[list[str], list[str]],
    specification: Specification,
) -> FloatArray:
    """Return what bringing the leading scores to common mean and variance changes in the residuals of one pool."""
    middle = learnt.mean(axis=0)
    spread = learnt.std(axis=0, ddof=1) if specification.options.get("standardize", True) else 1.0
    centred = (learnt - middle) / spread
    eigenvalues, vectors = _components(centred)
    share = np.cumsum(eigenvalues) / eigenvalues.sum()
    kept = int(np.flatnonzero(share > specification.options.get("percent_variance", 0.95))[0]) + 1
    leading = vectors[:, :kept]
    second = plain_combat(centred @ leading, labels[0], np.empty((len(labels[0]), 0)), eb=False)
    former = ((residuals - middle) / spread) @ leading
    scores = plain_apply(second, former, labels[1], np.empty((len(labels[1]), 0)))
    # Only what the scores changed is put back, so that what lies outside the components is left as it was.
    return np.asarray(((scores - former) @ leading.T) * spread)


def _components(centred: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the variances of the principal components and their axes [features x components], largest first.

    Eigenvectors of the features' covariance; where there are more features than scans, of the scans' products.
    """
    scans, features = centred.shape
    if features <= scans:
        eigenvalues, vectors = np.linalg.eigh(np.cov(centred.T))
        order = np.argsort(eigenvalues)[::-1]
        return np.maximum(eigenvalues[order], 0), vectors[:, order]
    eigenvalues, sides = np.linalg.eigh(centred @ centred.T / (scans - 1))
    order = np.argsort(eigenvalues)[::-1][: scans - 1]
    eigenvalues = np.maximum(eigenvalues[order], np.finfo(float).tiny)
    vectors = centred.T @ sides[:, order]
    return eigenvalues, vectors / np.linalg.norm(vectors, axis=0)


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
