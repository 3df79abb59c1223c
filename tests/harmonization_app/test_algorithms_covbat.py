"""CovBat: what ComBat leaves of a batch's covariance goes."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.covbat import CovBat
from harmonization_app.algorithms.specification import Specification

SCANS, FEATURES = 300, 12


def _with_planted_covariance() -> Dataset:
    random = np.random.default_rng(8)
    sites = np.repeat(["A", "B"], SCANS)
    direction = np.ones(FEATURES) / np.sqrt(FEATURES)
    shared = random.normal(0, np.where(sites == "A", 0.5, 2.0))
    values = 3 + 0.3 * random.normal(size=(2 * SCANS, FEATURES)) + np.outer(shared, direction)
    return Dataset(
        values,
        tuple(f"f{i}" for i in range(FEATURES)),
        tuple(f"r{i}" for i in range(2 * SCANS)),
        tuple(sites),
    )


def _distance(dataset: Dataset, values: np.ndarray) -> float:
    own = np.array(dataset.batches) == "A"
    return float(np.linalg.norm(np.cov(values[own].T) - np.cov(values[~own].T)))


def test_planted_difference_of_covariances_is_removed() -> None:
    dataset = _with_planted_covariance()

    combat = Combat().harmonize(dataset, Specification())
    covbat = CovBat().harmonize(dataset, Specification())

    assert _distance(dataset, combat.values) > 0.4
    assert _distance(dataset, covbat.values) < 0.25 * _distance(dataset, combat.values)


def test_number_of_components_is_reported() -> None:
    dataset = _with_planted_covariance()

    few = CovBat().harmonize(dataset, Specification(options={"percent_variance": 0.3}))

    assert few.facts["components"] == {"all": 1}
    assert few.model.arrays["rotation_0"].shape == (FEATURES, 1)
