"""Surrogate variable analysis feature by feature, by eigenvectors (Leek, Storey 2008; Parker et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import norm

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import FeaturePool, Specification
from harmonization_app.algorithms.verification.coding import plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` less what follows the surrogate variables of `fitted`, pool by pool."""
    options = specification.options
    covariates = plain_covariates(fitted, specification)
    others = plain_covariates(scans, specification, fitted)
    pools = [pool.features for pool in specification.pools] or [fitted.features]
    corrected = scans.values.copy()
    for position, features in enumerate(pools):
        columns = [fitted.features.index(name) for name in features]
        columns = [column for column in columns if np.ptp(fitted.values[:, column]) > 0]
        values, own = fitted.values[:, columns], scans.values[:, columns]
        middle = values.mean(axis=0)
        scale = values.std(axis=0, ddof=1) if options.get("standardize", True) else np.ones(len(columns))
        standard = (values - middle) / scale
        factors = options.get("factors")
        if factors is None:
            factors = _count(standard, covariates, specification, position)
        if factors == 0:
            continue
        if options.get("factors_from") == "residuals":
            one = np.ones((len(values), 1))
            slopes = np.linalg.lstsq(np.hstack([one, covariates]), standard, rcond=None)[0]
            learnt = standard - np.hstack([one, covariates]) @ slopes
            new = (own - middle) / scale - np.column_stack([np.ones(len(own)), others]) @ slopes
        else:
            weights = _weights(standard, covariates, factors, options.get("iterations", 20))
            learnt, new = standard * weights, (own - middle) / scale * weights
        scores, vectors = _components(learnt, factors)
        others_scores = new @ vectors / np.linalg.norm(learnt @ vectors, axis=0)
        design = np.column_stack([np.ones(len(values)), covariates, scores])
        for place, column in enumerate(columns):
            fit = np.linalg.lstsq(design, values[:, place], rcond=None)[0]
            corrected[:, column] -= others_scores @ fit[-factors:]
    return corrected


def _components(values: FloatArray, factors: int) -> tuple[FloatArray, FloatArray]:
    """Return scores of unit length and the features' vectors, by the eigenvectors of the smaller product."""
    wide = values.shape[1] > len(values)
    eigenvalues, vectors = np.linalg.eigh(values @ values.T if wide else values.T @ values)
    largest = np.argsort(eigenvalues)[::-1][:factors]
    first = vectors[:, largest]
    if wide:
        first = values.T @ first / np.sqrt(eigenvalues[largest])
    scores = values @ first
    return scores / np.linalg.norm(scores, axis=0), first


def _count(standard: FloatArray, covariates: FloatArray, specification: Specification, position: int) -> int:
    options = specification.options
    rounds = options.get("permutations", 100)
    design = np.column_stack([np.ones(len(standard)), covariates])
    residuals = _left(standard, design)
    random = np.random.default_rng([specification.seed, position])
    observed, exceeded = _shares(residuals, design.shape[1]), []
    for _ in range(rounds):
        permuted = _left(random.permuted(residuals, axis=0), design)
        exceeded.append(_shares(permuted, design.shape[1]) >= observed)
    found = 0
    for part in np.mean(exceeded, axis=0):
        if part > options.get("significance", 0.1):
            break
        found += 1
    return found


def _shares(residuals: FloatArray, columns: int) -> FloatArray:
    singular = np.linalg.svd(residuals, compute_uv=False)
    squares = singular[: min(residuals.shape) - columns] ** 2
    return np.asarray(squares / squares.sum())


def _left(values: FloatArray, design: FloatArray) -> FloatArray:
    return np.asarray(values - design @ np.linalg.lstsq(design, values, rcond=None)[0])


def _weights(standard: FloatArray, covariates: FloatArray, factors: int, rounds: int) -> FloatArray:
    """Return for each feature the probability that factors and not covariates move it."""
    one = np.ones((len(standard), 1))
    scores, _ = _components(_left(standard, np.hstack([one, covariates])), factors)
    for _ in range(rounds):
        covered = _tests(standard, np.hstack([one, covariates, scores]), np.hstack([one, scores]))
        hidden = _tests(standard, np.hstack([one, scores]), one)
        weights = (1 - _local_fdr(hidden)) * _local_fdr(covered)
        if not weights.any():
            raise ValueError("no feature tells the hidden factors")
        weighted = standard * weights
        scores, _ = _components(weighted - weighted.mean(axis=0), factors)
    return weights


def _tests(values: FloatArray, design: FloatArray, smaller: FloatArray) -> list[float]:
    added, left = design.shape[1] - smaller.shape[1], len(values) - design.shape[1]
    found = []
    for column in values.T:
        within, whole = (
            float(((column - own @ np.linalg.lstsq(own, column, rcond=None)[0]) ** 2).sum())
            for own in (design, smaller)
        )
        found.append(float(f_distribution.sf(max(whole - within, 0) / added / (within / left), added, left)))
    return found


def _local_fdr(probabilities: list[float]) -> FloatArray:
    """Return the local false discovery rates as the R package sva defines them, less its smoothing spline."""
    p = np.array(probabilities)
    null = min(float(np.mean(p >= 0.8)) / 0.2, 1.0)
    probits = norm.ppf(np.minimum(np.maximum(p, 1e-8), 1 - 1e-8))
    low, high = np.percentile(probits, [25, 75])
    spread = min(probits.std(ddof=1), (high - low) / 1.34)
    width = 1.5 * 0.9 * spread * len(p) ** (-1 / 5)
    points = np.linspace(probits.min() - 3 * width, probits.max() + 3 * width, 512)
    density = [float(norm.pdf(point, probits, width).mean()) for point in points]
    rates = np.minimum(null * norm.pdf(probits) / np.interp(probits, points, density), 1.0)
    least = 0.0
    for place in np.argsort(p, kind="stable"):
        least = max(least, float(rates[place]))
        rates[place] = least
    return np.asarray(rates)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = (
        _with_hidden_factor(table, seed) for table, seed in zip(case_input(), (6, 13), strict=True)
    )
    plan = replace(PLAIN_SPECIFICATION, eb=False)
    pools = (FeaturePool("left", dataset.features[:24]), FeaturePool("right", dataset.features[24:]))
    yield Input("counted_factors", dataset, plan)
    yield Input("two_factors", dataset, replace(plan, options={"factors": 2, "standardize": False}))
    yield Input("two_pools", dataset, replace(plan, pools=pools, options={"factors": 1}))
    yield Input("residuals", dataset, replace(plan, options={"factors_from": "residuals"}))
    yield Input("apply_new_scans", dataset, plan, new)
    yield Input("apply_residuals", dataset, replace(plan, options={"factors_from": "residuals"}), new)


def _with_hidden_factor(dataset: Dataset, seed: int) -> Dataset:
    """Return the scans of a dataset with 48 features, of which every fourth follows age and half a hidden factor."""
    random = np.random.default_rng(seed)
    places = np.arange(48)
    hidden = random.normal(0, 1, len(dataset.rows))
    age = np.array(dataset.covariates["age"], dtype=np.float64) - 60
    values = 2.5 + random.normal(0, 0.15, (len(hidden), len(places)))
    values += np.outer(age, np.where(places % 4 == 0, -0.01, 0.0))
    values += np.outer(hidden, np.where(places % 3 > 0, 0, 0.25) + np.where(places % 8 == 1, -0.3, 0))
    names = tuple(f"region_{i:02d}" for i in places)
    return replace(dataset, values=values.round(4), features=names, units=("mm",) * len(names))
