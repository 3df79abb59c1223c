"""GMM ComBat: a planted hidden grouping is found, corrected or kept; no grouping is refused; nothing is random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.gmm_combat import GMMCombat
from harmonization_app.algorithms.hidden_grouping import Grouping, stored_mixture
from harmonization_app.algorithms.mixture import fit_mixtures
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.nested import Nested
from harmonization_app.algorithms.specification import Covariate, FeaturePool, Specification
from harmonization_app.algorithms.verification import cross_check

SITES, SCANS_PER_SITE, FEATURES = 4, 40, 20
AGE = (Covariate("age", "continuous"),)
CORRECT = Specification(covariates=AGE, options={"grouping": "batch"})
PROTECT = Specification(covariates=AGE, options={"grouping": "protect"})


def _planted(seed: int, shift_sd: float = 4.0) -> tuple[Dataset, np.ndarray]:
    """Return scans of four sites, and which of them a hidden grouping shifts in every other feature."""
    random = np.random.default_rng(seed)
    scans = SITES * SCANS_PER_SITE
    site = np.repeat(np.arange(SITES), SCANS_PER_SITE)
    hidden = random.random(scans) < 0.4
    age = random.uniform(40, 80, scans)
    values = 100 + random.normal(0, 1, (scans, FEATURES)) - 0.03 * (age - 60)[:, None]
    values += 0.5 * random.normal(0, 1, (SITES, FEATURES))[site]
    signs = random.choice([-1, 1], FEATURES) * (np.arange(FEATURES) % 2 == 0)
    values += shift_sd * np.outer(hidden, signs)
    dataset = Dataset(
        values,
        tuple(f"f{i}" for i in range(FEATURES)),
        tuple(f"r{i}" for i in range(scans)),
        tuple("ABCD"[i] for i in site),
        {"age": tuple(age.tolist())},
    )
    return dataset, hidden


def _shift(dataset: Dataset, values: np.ndarray, hidden: np.ndarray) -> float:
    """Return the mean absolute effect of the hidden grouping on the features it shifts."""
    age = np.array(dataset.covariates["age"])
    design = np.column_stack([np.ones(len(age)), hidden, age])
    return float(np.abs(np.linalg.lstsq(design, values[:, ::2], rcond=None)[0][1]).mean())


def _groups(model, dataset: Dataset) -> np.ndarray:
    grouping = Grouping(model.facts["grouping"]["feature"], stored_mixture(model.arrays), {})
    return np.array(grouping.labels(dataset)) == "upper"


def test_planted_grouping_is_found_and_corrected_or_kept() -> None:
    rightly, corrected, kept = [], [], []
    for seed in range(20):
        dataset, hidden = _planted(seed)
        result = GMMCombat().harmonize(dataset, CORRECT)
        agreement = np.mean(_groups(result.model, dataset) == hidden)
        rightly.append(max(agreement, 1 - agreement))
        before = _shift(dataset, dataset.values, hidden)
        corrected.append(_shift(dataset, result.values, hidden) / before)
        protected = GMMCombat().harmonize(dataset, PROTECT)
        kept.append(_shift(dataset, protected.values, hidden) / before)

    assert np.median(rightly) > 0.96
    assert np.median(corrected) < 0.12
    assert np.median(kept) == pytest.approx(0.99, abs=0.01)


@pytest.mark.parametrize(
    "plan", [CORRECT, PROTECT, replace(CORRECT, eb=False)], ids=["batch", "protect", "no eb"]
)
def test_one_value_in_a_known_batch_keeps_its_scale(plan) -> None:
    dataset, _ = _planted(3)
    failed = np.array(dataset.batches) == "C"
    values = dataset.values.copy()
    values[failed, 5] = 99.0
    dataset = dataset.with_values(values)

    result = GMMCombat().harmonize(dataset, plan)

    last = len(result.model.facts["parts"]) - 1
    assert result.model.arrays[f"part{last}_delta_star"][2, 5] == 1.0
    assert result.flags["constant_in_batch"] == ("f5",)
    assert result.values[failed, 5].std() < 0.25 * result.values[~failed, 5].std()
    assert cross_check(dataset, result, GMMCombat.tolerance_sd).passed


def test_known_batch_effect_goes_in_both_modes() -> None:
    dataset, _ = _planted(3)
    sites = np.array(dataset.batches)

    for plan in (CORRECT, PROTECT):
        values = GMMCombat().harmonize(dataset, plan).values
        spread = np.ptp([values[sites == site].mean(axis=0) for site in "ABCD"], axis=0)
        assert spread[1::2].mean() < 0.25
    before = np.ptp([dataset.values[sites == site].mean(axis=0) for site in "ABCD"], axis=0)
    assert before[1::2].mean() > 0.8


def test_modes_are_combat_with_the_grouping_as_batch_or_covariate() -> None:
    dataset, _ = _planted(5)
    model = GMMCombat().fit(dataset, CORRECT)
    labels = tuple("upper" if own else "lower" for own in _groups(model, dataset))
    columns = {**dataset.covariates, "group": labels, "site": dataset.batches}
    known = replace(dataset, covariates=columns)

    nested = Nested().harmonize(known, Specification(covariates=AGE, batch_variables=("group", "site")))
    group = Covariate("group", "categorical", reference="lower", levels=("lower", "upper"))
    combat = Combat().harmonize(known, Specification(covariates=(*AGE, group)))

    assert np.array_equal(GMMCombat().apply(model, dataset).values, nested.values)
    assert np.array_equal(GMMCombat().harmonize(dataset, PROTECT).values, combat.values)


def test_feature_is_chosen_whatever_its_unit() -> None:
    dataset, _ = _planted(6)
    scales = np.where(np.arange(FEATURES) % 2 == 0, 1000.0, 0.001)

    in_mm = GMMCombat().fit(dataset, CORRECT).facts["grouping"]
    rescaled = GMMCombat().fit(dataset.with_values(dataset.values * scales), CORRECT).facts["grouping"]

    assert rescaled["feature"] == in_mm["feature"]
    assert rescaled["aic_gain"] == pytest.approx(in_mm["aic_gain"], rel=1e-6)


def test_result_does_not_depend_on_seed_or_row_order() -> None:
    dataset, _ = _planted(7)
    order = np.random.default_rng(1).permutation(len(dataset.rows))

    plain = GMMCombat().harmonize(dataset, CORRECT).values
    other_seed = GMMCombat().harmonize(dataset, replace(CORRECT, seed=5)).values
    shuffled = GMMCombat().harmonize(dataset.select(order), CORRECT).values

    assert np.array_equal(plain, other_seed)
    np.testing.assert_allclose(shuffled, plain[order], rtol=0, atol=1e-9)


def test_new_scans_are_assigned_by_the_frozen_mixture() -> None:
    dataset, _ = _planted(8)
    rows = np.arange(0, len(dataset.rows), 5)
    model = GMMCombat().fit(dataset, CORRECT)

    alone = [GMMCombat().apply(load_model(save_model(model)), dataset.select([row])).values for row in rows]

    whole = GMMCombat().apply(model, dataset).values[rows]
    np.testing.assert_allclose(np.vstack(alone), whole, rtol=0, atol=1e-11)


def test_pools_do_not_share_priors() -> None:
    dataset, _ = _planted(9)
    pools = (FeaturePool("first", dataset.features[:10]), FeaturePool("second", dataset.features[10:]))
    plan = replace(CORRECT, pools=pools, options={"grouping": "batch", "feature": "f0"})
    changed = dataset.values.copy()
    changed[:, 10:] *= np.linspace(1, 9, SITES * SCANS_PER_SITE)[:, None]

    before = GMMCombat().harmonize(dataset, plan).values
    after = GMMCombat().harmonize(dataset.with_values(changed), plan).values

    assert np.array_equal(before[:, :10], after[:, :10])


def test_missing_cells_stay_missing_and_do_not_show_the_grouping() -> None:
    dataset, _ = _planted(10)
    best = GMMCombat().fit(dataset, CORRECT).facts["grouping"]["feature"]
    values = dataset.values.copy()
    values[4, dataset.features.index(best)] = np.nan

    result = GMMCombat().harmonize(dataset.with_values(values), CORRECT)

    assert result.facts["grouping"]["feature"] != best
    assert np.array_equal(np.isnan(result.values), np.isnan(values))


def test_new_scan_without_the_value_that_assigns_it_is_refused() -> None:
    dataset, _ = _planted(11)
    model = GMMCombat().fit(dataset, CORRECT)
    values = dataset.values.copy()
    values[2, dataset.features.index(model.facts["grouping"]["feature"])] = np.nan

    with pytest.raises(HarmonizationRefused, match="has no value in r2"):
        GMMCombat().apply(model, dataset.with_values(values))


def test_features_with_one_mode_are_refused() -> None:
    dataset, _ = _planted(12, shift_sd=0.0)

    with pytest.raises(HarmonizationRefused, match="No hidden grouping: none of 20"):
        GMMCombat().fit(dataset, CORRECT)


def test_few_outlying_scans_are_no_grouping() -> None:
    dataset, _ = _planted(13, shift_sd=0.0)
    values = dataset.values.copy()
    values[:12, 3] += 8

    with pytest.raises(HarmonizationRefused, match="No hidden grouping"):
        GMMCombat().fit(dataset.with_values(values), CORRECT)


def test_grouping_that_is_the_batch_is_refused_as_covariate() -> None:
    dataset, _ = _planted(14, shift_sd=0.0)
    values = dataset.values.copy()
    values[:, 0] += 12 * np.isin(dataset.batches, ["A", "B"])

    with pytest.raises(HarmonizationRefused, match=r"hidden_grouping\[upper\]"):
        GMMCombat().fit(dataset.with_values(values), PROTECT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'grouping' is a required property"),
        ({"grouping": "remove"}, "grouping"),
        ({"grouping": "batch", "feature": "f99"}, "f99, which is to show .* is not among the features"),
        ({"grouping": "batch", "minimum_share": 0.7}, "minimum_share"),
        ({"grouping": "batch", "feature": "f1"}, "No hidden grouping: none of 1 feature"),
    ],
)
def test_faulty_options_are_refused(options, message) -> None:
    dataset, _ = _planted(15)

    with pytest.raises(HarmonizationRefused, match=message):
        GMMCombat().fit(dataset, replace(CORRECT, options=options))


def test_planned_feature_with_a_missing_value_is_refused_by_row() -> None:
    dataset, _ = _planted(16)
    values = dataset.values.copy()
    values[3, 0] = np.nan
    plan = replace(CORRECT, options={"grouping": "batch", "feature": "f0"})

    with pytest.raises(HarmonizationRefused, match="f0, which is to show .* no value in r3"):
        GMMCombat().fit(dataset.with_values(values), plan)


def test_column_with_the_name_of_the_grouping_is_refused() -> None:
    dataset, _ = _planted(17)
    taken = replace(dataset, covariates={**dataset.covariates, "hidden_grouping": dataset.batches})

    with pytest.raises(HarmonizationRefused, match="call it otherwise"):
        GMMCombat().fit(taken, CORRECT)


def test_mixture_is_that_of_scikit_learn() -> None:
    from sklearn.mixture import GaussianMixture

    random = np.random.default_rng(4)
    upper = random.random((300, 5)) < 0.4
    values = np.where(upper, random.normal(3, 0.7, upper.shape), random.normal(0, 1, upper.shape))

    ours = fit_mixtures(values, 0.25)

    for column in range(5):
        standard = ((values[:, column] - ours.centre[column]) / ours.scale[column])[:, None]
        theirs = GaussianMixture(2, tol=1e-10, max_iter=5000, reg_covar=0, n_init=3, random_state=0).fit(
            standard
        )
        order = np.argsort(theirs.means_[:, 0])
        np.testing.assert_allclose(ours.means[:, column], theirs.means_[order, 0], atol=1e-3)
        np.testing.assert_allclose(ours.variances[:, column], theirs.covariances_[order, 0, 0], atol=1e-3)
        one = GaussianMixture(1, reg_covar=0).fit(standard)
        assert ours.gain[column] == pytest.approx(one.aic(standard) - theirs.aic(standard), abs=1e-4)


def test_a_feature_chosen_by_the_data_is_warned_of_and_a_planned_one_is_not() -> None:
    dataset, _ = _planted(0)
    planned = replace(CORRECT, options={"grouping": "batch", "feature": "f0"})

    chosen = {finding.code: finding.severity for finding in GMMCombat().validate(dataset, CORRECT)}
    named = {finding.code for finding in GMMCombat().validate(dataset, planned)}

    assert chosen["grouping_feature_from_data"] == "warn"
    assert "grouping_feature_from_data" not in named
    assert GMMCombat.exploratory is False
