"""The surrogate variables of each feature pool of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, HarmonizationRefused, IntArray
from harmonization_app.algorithms.design import build_design, pool_columns
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.surrogate import (
    Surrogates,
    count_factors,
    feature_weights,
    has_enough_features,
    learn_surrogates,
)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """The surrogate variables of one pool, the weights of its features, and the largest change of one in the last
    round.
    """

    pool: str
    columns: IntArray
    surrogates: Surrogates
    weights: FloatArray
    change: float


def varying_pools(dataset: Dataset, specification: Specification) -> dict[str, IntArray]:
    """Return the varying columns of each pool."""
    return pool_columns(dataset, specification, np.ptp(dataset.values, axis=0) > 0)


def estimate_pools(
    dataset: Dataset, specification: Specification, options: Mapping[str, Any]
) -> Iterator[Estimate]:
    """Yield the surrogate variables of each pool. Raises HarmonizationRefused where its features give none."""
    covariates = build_design(dataset, specification).covariates
    for position, (pool, columns) in enumerate(varying_pools(dataset, specification).items()):
        values = dataset.values[:, columns]
        scale = values.std(axis=0, ddof=1) if options["standardize"] else np.ones(len(columns))
        standard = (values - values.mean(axis=0)) / scale
        factors = options["factors"]
        if factors is None:
            seed = (specification.seed, position)
            factors = count_factors(
                standard, covariates, options["permutations"], options["significance"], seed
            )
        _require_scans(pool, factors, standard, covariates)
        from_residuals = options["factors_from"] == "residuals"
        weights, change = np.ones(len(columns)), 0.0
        if factors and not from_residuals:
            weights, change = feature_weights(standard, covariates, factors, options["iterations"])
            _require_features(pool, factors, weights)
        own = learn_surrogates(values, weights / scale, covariates, factors, from_residuals=from_residuals)
        yield Estimate(pool, columns, own, weights, change)


def _require_scans(pool: str, factors: int, standard: FloatArray, covariates: FloatArray) -> None:
    most = min(len(standard) - 3 - covariates.shape[1], standard.shape[1] - 1)
    if factors > most:
        message = (
            f"Pool {pool}: its scans and features give at most {most} surrogate variable(s); plan no more."
        )
        raise HarmonizationRefused([Finding("too_many_factors", "stop", message)])


def _require_features(pool: str, factors: int, weights: FloatArray) -> None:
    if not has_enough_features(weights, factors):
        message = (
            f"Pool {pool}: too few features follow a hidden factor more than the covariates to tell {factors} "
            "surrogate variable(s). Plan factors_from residuals, fewer factors, or a method that uses the known "
            "batches."
        )
        raise HarmonizationRefused([Finding("no_feature_tells_the_factors", "stop", message)])
