"""Control-feature removal: a planted factor goes, planted biology stays, faulty controls are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.control_features import ControlFeatures
from harmonization_app.algorithms.specification import Covariate, Specification

SCANS, CONTROLS, FEATURES = 200, 6, 20
NAMES = tuple(f"csf_{i}" for i in range(CONTROLS)) + tuple(f"region_{i}" for i in range(FEATURES))
PLAN = Specification(
    covariates=(Covariate("age", "continuous"),), eb=False, options={"controls": list(NAMES[:CONTROLS])}
)


def _planted(seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Return a table, the factor in each of its cells, and the age effect of each feature."""
    random = np.random.default_rng(seed)
    age, factor = random.uniform(-20, 20, SCANS), random.normal(0, 1, SCANS)
    weights = random.choice([-1.0, 1.0], len(NAMES))
    slopes = np.where(np.arange(len(NAMES)) < CONTROLS, 0.0, 0.03)
    noise = random.normal(0, np.where(np.arange(len(NAMES)) < CONTROLS, 0.2, 1.0), (SCANS, len(NAMES)))
    planted = np.outer(factor, weights)
    values = 5 + planted + np.outer(age, slopes) + noise
    sites = tuple("AB"[i % 2] for i in range(SCANS))
    rows = tuple(f"r{i}" for i in range(SCANS))
    return Dataset(values, NAMES, rows, sites, {"age": tuple(age.tolist())}), planted, slopes


def test_planted_factor_is_taken_off_and_the_age_effect_stays() -> None:
    left, slopes = [], []
    for seed in range(10):
        dataset, planted, _ = _planted(seed)
        result = ControlFeatures().harmonize(dataset, PLAN).values[:, CONTROLS:]
        removed = dataset.values[:, CONTROLS:] - result
        left.append(np.mean((planted[:, CONTROLS:] - (removed - removed.mean(axis=0))) ** 2))
        slopes.append(np.polyfit(np.array(dataset.covariates["age"]), result, 1)[0])

    assert np.mean(left) < 0.02
    assert np.mean(slopes) == pytest.approx(0.03, abs=0.002)


def test_controls_pass_through_and_are_flagged() -> None:
    dataset, _, _ = _planted(1)

    result = ControlFeatures().harmonize(dataset, PLAN)

    assert np.array_equal(result.values[:, :CONTROLS], dataset.values[:, :CONTROLS])
    assert result.flags == {"control_feature": NAMES[:CONTROLS]}
    assert "controls follow disease" in result.facts["limits"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'controls' is a required property"),
        ({"controls": ["csf_0", "air"]}, "air are not among the features"),
        ({"controls": list(NAMES)}, "none is left to correct"),
        ({"controls": ["csf_0", "csf_1"], "factors": 3}, r"at most 2 factor\(s\)"),
    ],
)
def test_faulty_controls_are_refused(options, message) -> None:
    dataset, _, _ = _planted(1)

    with pytest.raises(HarmonizationRefused, match=message):
        ControlFeatures().fit(dataset, replace(PLAN, options=options))


def test_constant_control_is_refused() -> None:
    dataset, _, _ = _planted(1)
    values = dataset.values.copy()
    values[:, 2] = 1.0

    with pytest.raises(HarmonizationRefused, match="csf_2"):
        ControlFeatures().fit(dataset.with_values(values), PLAN)
