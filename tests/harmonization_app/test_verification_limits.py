"""What the methods' limits say of small batches and of ages apart, shown on a planted truth (5 sites, 68 features).

The first site has few scans or other ages; of the other four, with 60 scans each, nothing is asked. Shifts have an SD
of 0.35, logarithms of scales one of 0.15, in SD of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)

FEATURES, REPEATS = 68, 30
AGE = (Covariate("age", "continuous"),)


@dataclass(frozen=True)
class Left:
    """Root mean square of what is left of the first site's shift and log scale, as parts of what was planted."""

    shift: float
    scale: float


def _planted(seed: list[int], scans: int, years_apart: float, bend: float):
    random = np.random.default_rng(seed)
    site = np.repeat(np.arange(5), [scans, 60, 60, 60, 60])
    age = 60 + random.uniform(-15, 15, len(site)) + years_apart * (site == 0)
    loadings = random.normal(0, 0.35, (3, FEATURES))
    own = np.sqrt(np.maximum(1 - (loadings**2).sum(axis=0), 0.3))
    noise = random.normal(0, 1, (len(site), 3)) @ loadings + random.normal(0, own, (len(site), FEATURES))
    decades = (age - 60) / 10
    effect = np.outer(decades + bend * decades**2, random.uniform(-0.4, -0.1, FEATURES))
    shift, log_scale = random.normal(0, 0.35, (5, FEATURES)), random.normal(0, 0.15, (5, FEATURES))
    dataset = Dataset(
        3 + effect + shift[site] + noise * np.exp(log_scale)[site],
        tuple(f"f{i}" for i in range(FEATURES)),
        tuple(f"r{i}" for i in range(len(site))),
        tuple("ABCDE"[i] for i in site),
        {"age": tuple(age.tolist())},
    )
    return dataset, shift, log_scale


def _first_against_others(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[0] - values[1:].mean(axis=0))


def _left(
    scans: int, *, eb: bool = True, years_apart: float = 0.0, bend: float = 0.0, covariates=AGE
) -> Left:
    plan = Specification(
        covariates=covariates,
        eb=eb,
        batch_size=BatchSizePolicy(2, 2, 2, 2, 2),
        overlap=OverlapPolicy(100.0, 0.0),
    )
    squares = np.zeros((2, 2))
    for seed in range(REPEATS):
        dataset, shift, log_scale = _planted([seed, scans, int(years_apart)], scans, years_apart, bend)
        arrays = Combat().fit(dataset, plan).arrays
        found = arrays["gamma_star"] * np.sqrt(arrays["pooled_variance"]), 0.5 * np.log(arrays["delta_star"])
        for at, (planted, own) in enumerate(zip((shift, log_scale), found, strict=True)):
            truth = _first_against_others(planted)
            squares[at] += np.mean((truth - _first_against_others(own)) ** 2), np.mean(truth**2)
    parts = np.sqrt(squares[:, 0] / squares[:, 1])
    return Left(float(parts[0]), float(parts[1]))


def test_scales_of_small_batches_are_harmed_below_eight_scans_and_even_at_eight() -> None:
    assert _left(5).scale > 1.1
    assert _left(8).scale == pytest.approx(1.0, abs=0.1)
    assert _left(16).scale < 0.9


def test_without_empirical_bayes_scales_are_harmed_up_to_sixteen_scans() -> None:
    found = {scans: _left(scans, eb=False) for scans in (5, 8, 16, 32)}

    assert min(found[scans].scale for scans in (5, 8, 16)) > 1.1
    assert found[32].scale < 0.9
    assert found[5].shift > 1.0
    assert _left(5).shift < 0.9


def test_ages_apart_harm_where_age_is_left_out_or_bends() -> None:
    assert _left(32, years_apart=20).shift < 0.7
    assert _left(32, years_apart=20, covariates=()).shift > 1.2
    assert _left(32, years_apart=30, bend=0.2).shift > 1.0
    assert _left(32, covariates=()).shift < 0.6
