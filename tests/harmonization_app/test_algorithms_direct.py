"""Baselines and travelling subjects: planted truth, limits told, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.baselines import GlobalScaling, ZScore
from harmonization_app.algorithms.specification import BatchSizePolicy, Covariate, Specification
from harmonization_app.algorithms.travelling import TravellingSubject
from harmonization_app.algorithms.verification.methods.travelling import TRAVELLERS, make_travelling
from harmonization_app.algorithms.verification.suite import make_input

PLAIN = Specification(eb=False)
ANY_SIZE = BatchSizePolicy(2, 2, 2, 2, 1)
TRAVEL = replace(PLAIN, mean_only=True, subject="subject", batch_size=ANY_SIZE)


def _scaled(seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    sites = np.repeat(np.arange(4), 60)
    level, spread = random.uniform(1, 4, 40), random.uniform(0.05, 0.3, 40)
    truth = level + random.normal(0, 1, (240, 40)) * spread
    slope, offset = random.uniform(0.8, 1.2, 4), random.uniform(-0.3, 0.3, 4)
    slope, offset = slope / slope.mean(), offset - offset.mean()
    dataset = Dataset(
        truth * slope[sites, None] + offset[sites, None],
        tuple(f"f{i}" for i in range(40)),
        tuple(f"r{i}" for i in range(240)),
        tuple("abcd"[i] for i in sites),
    )
    return dataset, truth, slope


def test_planted_line_of_each_batch_is_recovered() -> None:
    worst = []
    for seed in range(10):
        dataset, _, slope = _scaled(seed)
        model = GlobalScaling().fit(dataset, PLAIN)
        worst.append(np.abs(model.arrays["slope"][:, 0] - slope).max())

    assert max(worst) < 0.01


def test_scaling_does_not_see_an_effect_on_one_feature() -> None:
    dataset, truth, _ = _scaled(1)
    values = truth.copy()
    values[:60, 7] += 1.0

    result = GlobalScaling().harmonize(dataset.with_values(values), PLAIN)

    assert result.values[:60, 7].mean() - result.values[60:, 7].mean() > 0.9
    assert "single regions" in result.facts["limits"][0]


def test_scaling_refuses_mixed_units_and_a_profile_that_does_not_follow() -> None:
    dataset, _, _ = _scaled(1)
    units = ("mm",) * 20 + ("mm3",) * 20
    with pytest.raises(HarmonizationRefused, match="mixes mm, mm3"):
        GlobalScaling().fit(replace(dataset, units=units), PLAIN)
    turned = dataset.values.copy()
    turned[:60] = 5 - turned[:60]
    with pytest.raises(HarmonizationRefused, match="does not follow the common one"):
        GlobalScaling().fit(dataset.with_values(turned), PLAIN)


def test_scaling_refuses_features_of_very_unlike_size() -> None:
    dataset, _, _ = _scaled(1)
    sizes = np.ones(40)
    sizes[7] = 1e7

    with pytest.raises(HarmonizationRefused, match="mixes features of very unlike size"):
        GlobalScaling().fit(dataset.with_values(dataset.values * sizes), PLAIN)


def test_features_that_lack_a_batch_pass_through_the_baselines() -> None:
    dataset = make_input({"A": 30, "B": 25, "C": 40}, seed=3)
    values = dataset.values.copy()
    values[np.array(dataset.batches) == "A", 4] = np.nan
    values[np.array(dataset.batches) == "B", 5] = 2.3
    plan = replace(PLAIN, unusable_features="pass_through")

    for method in (ZScore(), GlobalScaling()):
        result = method.harmonize(dataset.with_values(values), plan)
        assert np.array_equal(result.values[:, 4], values[:, 4], equal_nan=True)
        assert result.flags["unusable"] == ("region_04",)
        assert np.isfinite(np.delete(result.values, 4, axis=1)).all()
    free = replace(plan, options={"unit_free": True})
    with pytest.raises(HarmonizationRefused, match="region_04 would pass through in its own unit"):
        ZScore().fit(dataset.with_values(values), free)


def test_equal_values_keep_their_scale_whatever_their_rounding() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    values = dataset.values.copy()
    values[np.array(dataset.batches) == "A", 4] = 2.3
    assert np.nanstd(values[np.array(dataset.batches) == "A", 4]) > 0

    result = ZScore().harmonize(dataset.with_values(values), PLAIN)

    centre = values[:, 4].mean()
    assert result.values[np.array(dataset.batches) == "A", 4] == pytest.approx(centre, rel=1e-12)


def test_z_scores_have_one_mean_and_one_spread() -> None:
    dataset = make_input({"A": 30, "B": 25, "C": 40}, seed=3)

    result = ZScore().harmonize(dataset, PLAIN)
    free = ZScore().harmonize(dataset, replace(PLAIN, options={"unit_free": True}))

    labels = np.array(dataset.batches)
    for batch in "ABC":
        own = result.values[labels == batch]
        assert own.mean(axis=0) == pytest.approx(dataset.values.mean(axis=0), rel=1e-12)
        assert free.values[labels == batch].std(axis=0, ddof=1) == pytest.approx(np.ones(12), rel=1e-12)


def test_z_scores_remove_biology_and_say_so() -> None:
    dataset = make_input({"A": 40, "B": 40}, seed=3)
    truth = dataset.values + np.where(np.array(dataset.batches) == "A", 0.5, 0.0)[:, None]

    result = ZScore().harmonize(dataset.with_values(truth), PLAIN)

    own = np.array(dataset.batches) == "A"
    assert abs(result.values[own].mean() - result.values[~own].mean()) < 1e-9
    assert "age, sex or disease" in result.facts["limits"][0]


def test_constant_in_a_batch_keeps_its_scale_and_is_flagged() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    values = dataset.values.copy()
    values[np.array(dataset.batches) == "A", 4] = 2.0

    result = ZScore().harmonize(dataset.with_values(values), PLAIN)

    assert result.flags == {"constant_in_batch": ("region_04",)}
    assert np.isfinite(result.values).all()


@pytest.mark.parametrize("method", [GlobalScaling(), ZScore(), TravellingSubject()])
def test_covariates_are_refused_by_methods_that_do_not_model_them(method) -> None:
    dataset, _ = make_travelling(1)
    plan = replace(
        TRAVEL if method.id == "travelling-subject" else PLAIN, covariates=(Covariate("age", "continuous"),)
    )

    with pytest.raises(HarmonizationRefused, match="covariates"):
        method.fit(dataset, plan)


def test_travelling_subjects_recover_the_planted_effects() -> None:
    errors = []
    for seed in range(20):
        dataset, effect = make_travelling(seed)
        model = TravellingSubject().fit(dataset, TRAVEL)
        assert model.facts["travelling_subjects"] == TRAVELLERS
        errors.append(model.arrays["effect"] - effect)

    error = float(np.sqrt(np.mean(np.square(errors))))
    expected = 0.1 / np.sqrt(TRAVELLERS) * np.sqrt(4 / 5)
    assert error == pytest.approx(expected, rel=0.1)
    assert np.abs(np.mean(errors)) < 0.005


def test_differences_of_the_sites_own_subjects_stay() -> None:
    dataset, _ = make_travelling(2)

    result = TravellingSubject().harmonize(dataset, TRAVEL)

    local = np.array([row.startswith("P") for row in dataset.rows])
    scanners = np.array(["abcde".index(str(batch)) for batch in dataset.batches])
    slope = np.polyfit(scanners[local], result.values[local].mean(axis=1), 1)[0]
    assert abs(slope - 0.5) < 0.05


def test_batch_without_a_travelling_subject_is_refused_by_name() -> None:
    dataset, _ = make_travelling(2)
    apart = [i for i, row in enumerate(dataset.rows) if not (row.startswith("T") and row.endswith("/e"))]

    with pytest.raises(HarmonizationRefused, match="No travelling subject connects e with the other batches"):
        TravellingSubject().fit(dataset.select(apart), TRAVEL)


def test_missing_subject_is_refused_by_row() -> None:
    dataset, _ = make_travelling(2)
    holed = replace(dataset, covariates={"subject": (None, *dataset.covariates["subject"][1:])})

    with pytest.raises(HarmonizationRefused, match="subject is missing or unreadable in T0/a"):
        TravellingSubject().fit(holed, TRAVEL)
