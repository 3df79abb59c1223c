"""Robust ComBat: the published results, what outliers no longer do, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.add_batch import add_batch
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.combat_robust import CombatRobust
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.robust import medians, midvariances
from harmonization_app.algorithms.specification import FeaturePool, OverlapPolicy, Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.reference import reference_cases
from harmonization_app.algorithms.verification.suite import make_input

PLAN = Specification(overlap=OverlapPolicy(minimum_overlap=0.0, warn_smd_above=10.0))


def _planted(outliers: float, seed: int = 31) -> tuple[Dataset, np.ndarray]:
    """Return 40 features of three sites with shifts, a share of cells far up at site A, and the values without."""
    random = np.random.default_rng(seed)
    sites = np.repeat(list("ABC"), 60)
    clean = random.normal(3.0, 0.2, (180, 40))
    shifted = clean + np.where(sites == "A", 0.3, 0.0)[:, None]
    far = (random.random(clean.shape) < outliers) & (sites == "A")[:, None]
    dataset = Dataset(
        np.where(far, shifted + 3.0, shifted),
        tuple(f"f{i}" for i in range(40)),
        tuple(f"r{i}" for i in range(180)),
        tuple(sites.tolist()),
    )
    return dataset, np.where(far, np.nan, clean)


def _site_gap(values: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest difference of site A's mean error from the others', outlying cells left out."""
    error = np.where(np.isnan(truth), np.nan, values - truth)
    return float(np.abs(np.nanmean(error[:60], axis=0) - np.nanmean(error[60:], axis=0)).max())


@pytest.mark.reference
def test_published_results_are_equal_to_twelve_digits(reference_data) -> None:
    cases = list(reference_cases(reference_data / "harmonization", "combat-robust"))

    found = [
        max_difference_sd(
            CombatRobust().harmonize(case.dataset, case.specification).values,
            case.expected,
            case.dataset.values,
        )
        for case in cases
    ]

    assert len(found) == 3
    assert max(found) < 1e-12


def test_midvariance_of_a_normal_sample_is_its_variance_and_outliers_do_not_move_it() -> None:
    random = np.random.default_rng(3)
    sample = random.normal(5, 2, (1, 40_000))
    far = np.where(random.random(sample.shape) < 0.05, 500.0, sample)

    assert midvariances(sample, medians(sample))[0] == pytest.approx(4.0, rel=0.03)
    assert midvariances(far, medians(far))[0] == pytest.approx(4.0, rel=0.1)
    assert far.var() > 10_000


def test_midvariance_by_hand() -> None:
    # Deviations -1, 0, 1 and 100 about 0: median absolute deviation 1, cut-off 9 / 0.6745 = 13.34, 100 is outside.
    square = (0.6744897501960817 / 9) ** 2
    expected = 4 * 2 * (1 - square) ** 4 / (2 * (1 - square) * (1 - 5 * square) + 1) ** 2

    found = midvariances(np.array([[-1.0, 0.0, 1.0, 100.0, np.nan]]), np.array([0.0]))

    assert found[0] == pytest.approx(expected, rel=1e-14)


def test_midvariance_without_spread_is_unknown() -> None:
    assert np.isnan(midvariances(np.array([[1.0, 1.0, 1.0, 5.0]]), np.array([1.0])))[0]


def test_outlying_cells_do_not_move_their_site() -> None:
    dataset, truth = _planted(outliers=0.08)

    robust = CombatRobust().harmonize(dataset, PLAN)
    plain = Combat().harmonize(dataset, PLAN)

    assert _site_gap(plain.values, truth) > 0.15
    assert _site_gap(robust.values, truth) < 0.12
    spread = [np.nanstd(np.where(np.isnan(truth), np.nan, own)[:60]) for own in (robust.values, plain.values)]
    assert abs(spread[0] - 0.2) < 0.03 < abs(spread[1] - 0.2)


def test_without_outliers_it_is_near_combat() -> None:
    dataset, truth = _planted(outliers=0.0)

    robust, plain = CombatRobust().harmonize(dataset, PLAN), Combat().harmonize(dataset, PLAN)

    assert max_difference_sd(robust.values, plain.values, dataset.values) < 0.6
    assert _site_gap(robust.values, truth) < 0.12


def test_reference_batch_comes_back_unchanged() -> None:
    dataset, _ = _planted(outliers=0.05)

    result = CombatRobust().harmonize(dataset, replace(PLAN, reference_batch="B"))

    own = np.array(dataset.batches) == "B"
    assert np.array_equal(result.values[own], dataset.values[own])
    assert not np.array_equal(result.values[~own], dataset.values[~own])


def test_missing_cells_touch_their_own_feature_only_without_shrinkage() -> None:
    dataset, _ = _planted(outliers=0.05)
    values = dataset.values.copy()
    values[::7, 3] = np.nan
    plan = replace(PLAN, eb=False)

    whole, holed = (
        CombatRobust().harmonize(dataset.with_values(own), plan).values for own in (dataset.values, values)
    )

    others = np.arange(40) != 3
    assert max_difference_sd(holed[:, others], whole[:, others], dataset.values[:, others]) < 1e-12
    assert np.array_equal(np.isnan(holed), np.isnan(values))


def test_fit_repeats_bit_by_bit() -> None:
    dataset, _ = _planted(outliers=0.05)

    assert save_model(CombatRobust().fit(dataset, PLAN)) == save_model(CombatRobust().fit(dataset, PLAN))


def test_pools_share_no_prior() -> None:
    dataset = make_input({"A": 40, "B": 35, "C": 30}, seed=21)
    first, second = dataset.features[:5], dataset.features[5:]
    pooled = replace(PLAN, pools=(FeaturePool("first", first), FeaturePool("second", second)))

    together = CombatRobust().harmonize(dataset, pooled).values
    apart = [
        CombatRobust().harmonize(dataset, replace(PLAN, features=part)).values for part in (first, second)
    ]

    assert max_difference_sd(together, np.hstack(apart), dataset.values) < 1e-12
    assert max_difference_sd(together, CombatRobust().harmonize(dataset, PLAN).values, dataset.values) > 1e-4


def test_mostly_equal_values_of_a_batch_are_refused_by_name() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    values = dataset.values.copy()
    rows = np.flatnonzero(np.array(dataset.batches) == "A")[:20]
    values[rows, 5] = 2.0

    with pytest.raises(HarmonizationRefused, match="batch A more than half of the values of region_05"):
        CombatRobust().fit(dataset.with_values(values), PLAN)


def test_batch_of_one_value_keeps_its_scale() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    values = dataset.values.copy()
    values[np.array(dataset.batches) == "B", 5] = 2.0

    result = CombatRobust().harmonize(dataset.with_values(values), PLAN)

    assert result.flags["constant_in_batch"] == ("region_05",)
    assert result.model.arrays["delta_star"][1, 5] == 1.0


def test_nonparametric_priors_are_refused() -> None:
    with pytest.raises(HarmonizationRefused, match="parametric"):
        CombatRobust().fit(_planted(0.0)[0], replace(PLAN, parametric=False))


def test_single_feature_needs_eb_off() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    one = replace(PLAN, features=dataset.features[:1])

    with pytest.raises(HarmonizationRefused, match="eb off|empirical Bayes"):
        CombatRobust().fit(dataset, one)

    assert CombatRobust().harmonize(dataset, replace(one, eb=False)).values.shape == (55, 1)


@pytest.mark.parametrize("change", [{}, {"eb": False}, {"mean_only": True}])
def test_added_batch_with_a_reference_equals_fitting_all_together(change) -> None:
    dataset, _ = _planted(outliers=0.05)
    plan = replace(PLAN, reference_batch="B", **change)
    new = np.array(dataset.batches) == "A"
    known, late = dataset.select(np.flatnonzero(~new)), dataset.select(np.flatnonzero(new))

    model = CombatRobust().fit(known, plan)
    extended = load_model(save_model(add_batch(model, late)))

    together = CombatRobust().harmonize(dataset, plan).values
    added = CombatRobust().apply(extended, late).values
    assert max_difference_sd(added, together[new], dataset.values) < 1e-12
    assert np.array_equal(
        CombatRobust().apply(extended, known).values, CombatRobust().apply(model, known).values
    )
