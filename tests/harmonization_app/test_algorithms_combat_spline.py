"""Natural splines: R's basis, linear tails, and a bent age effect that stays when batches differ in age."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.combat_spline import CombatSpline, natural_spline, place_knots
from harmonization_app.algorithms.specification import Covariate, OverlapPolicy, Specification
from harmonization_app.algorithms.verification.suite import make_input

AGE = (Covariate("age", "continuous"),)
PLAN = Specification(covariates=AGE, options={"splines": {"age": 4}})


@pytest.mark.reference
@pytest.mark.parametrize("data", ["ct68", "ct400", "real_enigma_example"])
def test_basis_is_that_of_r(data, reference_data) -> None:
    folder = reference_data / "harmonization"
    design = pd.read_csv(folder / f"cases/i3_eb_age_ns4__{data}/design_covariates.csv.gz")
    age = pd.read_csv(folder / f"data/{data}/input.csv.gz")["age"].to_numpy(np.float64)

    basis = natural_spline(age, place_knots(age, 4))

    published = design[[f"age_ns{i}" for i in range(1, 5)]].to_numpy()
    assert np.abs(basis - published).max() < 1e-12


def test_tails_are_straight() -> None:
    knots = np.array([0.0, 1.0, 2.0, 4.0])

    below = natural_spline(np.array([-3.0, -2.0, -1.0, 0.0]), knots)
    above = natural_spline(np.array([4.0, 5.0, 6.0]), knots)

    assert np.abs(np.diff(below, 2, axis=0)).max() < 1e-12
    assert np.abs(np.diff(above, 2, axis=0)).max() < 1e-12
    assert np.abs(np.diff(natural_spline(np.array([1.0, 2.0, 3.0]), knots), 2, axis=0)).max() > 0.01


def test_bent_age_effect_is_not_taken_for_a_batch_effect() -> None:
    random = np.random.default_rng(4)
    sites = np.repeat(["old", "young", "all"], 120)
    age = np.concatenate(
        [random.uniform(55, 85, 120), random.uniform(25, 60, 120), random.uniform(25, 85, 120)]
    )
    truth = 3 - 0.0012 * (age[:, None] - 25) ** 2 + random.normal(0, 0.1, (360, 20))
    shift = np.where(sites == "old", 0.3, np.where(sites == "young", -0.3, 0.0))
    dataset = Dataset(
        truth + shift[:, None],
        tuple(f"f{i}" for i in range(20)),
        tuple(f"r{i}" for i in range(360)),
        tuple(sites.tolist()),
        {"age": tuple(age.tolist())},
    )
    anywhere = OverlapPolicy(minimum_overlap=0.0)

    def gap(values: np.ndarray) -> float:
        """Return the difference of the two sites' errors, 0 where only a common level is off."""
        error = (values - truth).mean(axis=1)
        return abs(float(error[sites == "old"].mean() - error[sites == "young"].mean()))

    straight = Combat().harmonize(dataset, Specification(covariates=AGE, overlap=anywhere))
    bent = CombatSpline().harmonize(dataset, replace(PLAN, overlap=anywhere))

    assert gap(straight.values) > 0.1
    assert gap(bent.values) < 0.2 * gap(straight.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'splines' is a required property"),
        ({"splines": {"sex": 4}}, "does not name as continuous"),
        ({"splines": {"height": 4}}, "does not name as continuous"),
        ({"splines": {"age": 1}}, "less than the minimum"),
    ],
)
def test_faulty_splines_are_refused(options, message) -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)

    with pytest.raises(HarmonizationRefused, match=message):
        CombatSpline().fit(dataset, replace(PLAN, options=options))


def test_coinciding_knots_are_refused() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    few = replace(dataset, covariates={"age": tuple(float(i % 3) for i in range(55))})

    with pytest.raises(HarmonizationRefused, match="two knots fall together"):
        CombatSpline().fit(few, PLAN)
