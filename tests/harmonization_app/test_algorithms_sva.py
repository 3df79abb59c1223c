"""Surrogate variable analysis: a planted hidden batch goes, the covariates stay, doubtful factors are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.specification import Covariate, FeaturePool, Specification
from harmonization_app.algorithms.surrogate import count_factors, local_fdr
from harmonization_app.algorithms.sva import SurrogateVariables

SCANS, FEATURES = 200, 100
NAMES = tuple(f"region_{i}" for i in range(FEATURES))
PLAN = Specification(covariates=(Covariate("age", "continuous"),), eb=False)


def _planted(seed: int, hidden_sd: float = 1.0, with_age: int = 33) -> tuple[Dataset, np.ndarray]:
    """Return values with an age effect in the first features and a hidden batch that goes with age, and that batch."""
    random = np.random.default_rng(seed)
    age = random.uniform(40, 80, SCANS)
    hidden = (random.random(SCANS) < np.where(age > 60, 0.6, 0.4)).astype(float)
    slopes = np.where(np.arange(FEATURES) < with_age, -0.03, 0.0)
    values = 100 + np.outer(age - 60, slopes) + random.normal(0, 1, (SCANS, FEATURES))
    values += np.outer(hidden, random.normal(0, hidden_sd, FEATURES))
    dataset = Dataset(
        values,
        NAMES,
        tuple(f"r{i}" for i in range(SCANS)),
        tuple("AB"[i % 2] for i in range(SCANS)),
        {"age": tuple(age.tolist())},
        ("mm",) * FEATURES,
    )
    return dataset, hidden


def _effects(dataset: Dataset, values: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """Return the coefficients [age and columns x features] of a linear model."""
    design = np.column_stack([np.ones(SCANS), dataset.covariates["age"], *columns])
    return np.linalg.lstsq(design, values, rcond=None)[0][1:]


def _names(model) -> dict[str, str]:
    return {finding["code"]: finding["severity"] for finding in model.facts["findings"]}


def test_planted_hidden_batch_is_taken_off_and_the_age_effect_stays() -> None:
    left, slopes = [], []
    for seed in range(20):
        dataset, hidden = _planted(seed)
        result = SurrogateVariables().harmonize(dataset, PLAN)
        before, after = (_effects(dataset, own, hidden)[1] for own in (dataset.values, result.values))
        left.append(np.mean(after**2) / np.mean(before**2))
        slopes.append(_effects(dataset, result.values)[0, :33].mean())
        assert result.facts["surrogate_variables"]["all"]["factors"] == 1

    assert np.median(left) < 0.005
    assert max(left) < 0.01
    assert np.mean(slopes) == pytest.approx(-0.03, abs=0.0005)


def test_mean_of_each_feature_stays() -> None:
    dataset, _ = _planted(2)

    result = SurrogateVariables().harmonize(dataset, PLAN).values

    np.testing.assert_allclose(result.mean(axis=0), dataset.values.mean(axis=0), rtol=1e-12)


def test_no_hidden_factor_leaves_the_values_and_is_told() -> None:
    dataset, _ = _planted(3, hidden_sd=0.0)

    result = SurrogateVariables().harmonize(dataset, PLAN)

    assert np.array_equal(result.values, dataset.values)
    assert _names(result.model)["no_surrogate_variable"] == "warn"


@pytest.mark.parametrize("planted", [0, 1, 3])
def test_factors_are_counted(planted) -> None:
    random = np.random.default_rng(planted)
    age = random.normal(size=(150, 1))
    hidden = random.normal(size=(150, planted)) @ random.normal(size=(planted, 80))
    values = hidden + age @ random.normal(size=(1, 80)) + random.normal(size=(150, 80))

    assert count_factors(values, age, 100, 0.05, (7, 0)) == planted


def test_same_seed_gives_the_same_result() -> None:
    dataset, _ = _planted(4)

    first = SurrogateVariables().harmonize(dataset, PLAN).values
    second = SurrogateVariables().harmonize(dataset, PLAN).values

    assert np.array_equal(first, second)


def test_planned_number_of_factors_needs_no_seed() -> None:
    dataset, _ = _planted(5)
    plan = replace(PLAN, options={"factors": 2})

    first = SurrogateVariables().harmonize(dataset, plan)
    second = SurrogateVariables().harmonize(dataset, replace(plan, seed=9))

    assert np.array_equal(first.values, second.values)
    assert first.facts["surrogate_variables"]["all"]["factors"] == 2


def test_unit_of_a_feature_does_not_matter_when_standardized() -> None:
    dataset, _ = _planted(6)
    units = np.where(np.arange(FEATURES) % 2 == 0, 1000.0, 0.001)
    scaled = replace(dataset, values=dataset.values * units, units=("um", "m") * (FEATURES // 2))

    result = SurrogateVariables().harmonize(scaled, PLAN).values / units

    np.testing.assert_allclose(result, SurrogateVariables().harmonize(dataset, PLAN).values, atol=1e-8)
    with pytest.raises(HarmonizationRefused, match="mixes m, um: without standardize"):
        SurrogateVariables().fit(scaled, replace(PLAN, options={"standardize": False}))


def test_new_scans_are_corrected_one_by_one_as_together() -> None:
    dataset, _ = _planted(7)
    model = load_model(save_model(SurrogateVariables().fit(dataset, PLAN)))

    whole = SurrogateVariables().apply(model, dataset).values
    alone = np.vstack(
        [SurrogateVariables().apply(model, dataset.select([row])).values for row in range(0, SCANS, 20)]
    )

    np.testing.assert_allclose(alone, whole[::20], rtol=0, atol=1e-11)


def test_frozen_factors_take_the_hidden_batch_off_scans_not_fitted() -> None:
    dataset, hidden = _planted(8)
    fitted, others = np.arange(0, SCANS, 2), np.arange(1, SCANS, 2)
    sites = tuple("AB"[i // 2 % 2] for i in range(SCANS))
    dataset = replace(dataset, batches=sites)
    model = SurrogateVariables().fit(dataset.select(fitted), PLAN)

    result = SurrogateVariables().apply(model, dataset.select(others)).values

    age = np.array(dataset.covariates["age"])[others]
    design = np.column_stack([np.ones(len(others)), age, hidden[others]])
    before, after = (
        np.mean(np.linalg.lstsq(design, own, rcond=None)[0][2] ** 2)
        for own in (dataset.values[others], result)
    )
    # Of what is left, 4 / 100 is the sampling error of a coefficient over 100 scans.
    assert after < 0.1 * before


def test_pools_do_not_share_their_factors() -> None:
    dataset, _ = _planted(9)
    pools = (FeaturePool("first", NAMES[::2]), FeaturePool("second", NAMES[1::2]))
    plan = replace(PLAN, pools=pools)
    changed = dataset.values.copy()
    changed[:, 1::2] += np.outer(np.random.default_rng(1).normal(0, 2, SCANS), np.linspace(-1, 1, 50))

    before = SurrogateVariables().harmonize(dataset, plan).values
    after = SurrogateVariables().harmonize(dataset.with_values(changed), plan).values

    assert np.array_equal(before[:, ::2], after[:, ::2])


def test_constant_feature_passes_through_and_is_flagged() -> None:
    dataset, _ = _planted(10)
    values = dataset.values.copy()
    values[:, 4] = 7.0
    plan = replace(PLAN, unusable_features="pass_through")

    result = SurrogateVariables().harmonize(dataset.with_values(values), plan)

    assert (result.values[:, 4] == 7.0).all()
    assert result.flags["constant"] == ("region_4",)


def test_plan_without_covariates_is_refused() -> None:
    dataset, _ = _planted(11)

    with pytest.raises(HarmonizationRefused, match="biology included"):
        SurrogateVariables().fit(dataset, replace(PLAN, covariates=()))


def test_age_in_every_feature_is_refused() -> None:
    dataset, _ = _planted(12, with_age=FEATURES)
    values = dataset.values - 0.2 * np.array(dataset.covariates["age"])[:, None]

    with pytest.raises(HarmonizationRefused, match="too few features follow a hidden factor"):
        SurrogateVariables().fit(dataset.with_values(values), replace(PLAN, options={"factors": 1}))


def test_residuals_take_the_hidden_batch_off_where_every_feature_follows_age() -> None:
    plan = replace(PLAN, options={"factors_from": "residuals"})
    left = []
    for seed in range(10):
        dataset, hidden = _planted(seed, with_age=FEATURES)
        result = SurrogateVariables().harmonize(dataset, plan)
        before, after = (_effects(dataset, own, hidden)[1] for own in (dataset.values, result.values))
        left.append(np.mean(after**2) / np.mean(before**2))
        ages = [_effects(dataset, own)[0] for own in (dataset.values, result.values)]
        np.testing.assert_allclose(ages[1], ages[0], rtol=0, atol=1e-12)

    assert max(left) < 0.003


def test_residuals_of_a_new_scan_use_its_own_covariates() -> None:
    dataset, _ = _planted(4, with_age=FEATURES)
    model = SurrogateVariables().fit(dataset, replace(PLAN, options={"factors_from": "residuals"}))
    age = np.array(dataset.covariates["age"])
    slopes, older = model.arrays["slopes_0"], age + 1

    moved = replace(
        dataset,
        values=dataset.values + slopes,
        covariates={"age": tuple(np.minimum(older, age.max()).tolist())},
    )
    young = np.flatnonzero(older < age.max())

    before = SurrogateVariables().apply(model, dataset).values[young]
    after = SurrogateVariables().apply(model, moved).values[young]
    np.testing.assert_allclose(after - before, np.broadcast_to(slopes, after.shape), rtol=0, atol=1e-10)


def test_features_that_are_all_the_same_are_refused() -> None:
    dataset, _ = _planted(16)
    values = dataset.values[:, [80]] * np.linspace(1, 2, FEATURES)

    with pytest.raises(HarmonizationRefused, match="surrogate variables hold 98% of the variance"):
        SurrogateVariables().fit(
            dataset.with_values(values), replace(PLAN, options={"factors": 1, "factors_from": "residuals"})
        )


def test_few_features_are_refused_or_told() -> None:
    dataset, _ = _planted(13)

    with pytest.raises(HarmonizationRefused, match="Pool all has 9 varying"):
        SurrogateVariables().fit(dataset, replace(PLAN, features=NAMES[:9]))
    findings = SurrogateVariables().validate(dataset, replace(PLAN, features=NAMES[30:70]))
    assert "few_features" in {finding.code for finding in findings if finding.severity == "warn"}


def test_weights_that_still_change_are_told() -> None:
    dataset, _ = _planted(14)

    findings = SurrogateVariables().validate(dataset, replace(PLAN, options={"iterations": 1}))

    assert "weights_not_settled" in {finding.code for finding in findings if finding.severity == "warn"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": 0}, "factors"),
        ({"factors": 150}, "at most 99 surrogate"),
        ({"permutations": 5}, "permutations"),
        ({"significance": 0}, "significance"),
        ({"factors_from": "controls"}, "factors_from"),
    ],
)
def test_faulty_options_are_refused(options, message) -> None:
    dataset, _ = _planted(15)

    with pytest.raises(HarmonizationRefused, match=message):
        SurrogateVariables().fit(dataset, replace(PLAN, options=options))


def test_local_false_discovery_rate_rises_with_p() -> None:
    random = np.random.default_rng(1)
    p = np.concatenate([random.uniform(0, 1, 800), random.beta(0.05, 5, 200)])

    rates = local_fdr(p)

    assert (np.diff(rates[np.argsort(p)]) >= 0).all()
    assert rates.max() <= 1
    assert rates[800:].mean() < 0.4 < 0.7 < rates[:800].mean()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_values_beyond_computing_are_refused(factor) -> None:
    dataset, _ = _planted(17)

    with pytest.raises(HarmonizationRefused, match="give them in another unit|residual variance"):
        SurrogateVariables().fit(dataset.with_values(dataset.values * factor), PLAN)
