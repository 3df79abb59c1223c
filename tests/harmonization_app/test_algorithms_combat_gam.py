"""Penalized smooths: mgcv's basis and penalties, the least score, planted curves, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from harmonization_app.algorithms import penalized_fit
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.combat_gam import CombatGam
from harmonization_app.algorithms.kernel import fit_statistics, group_rows
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.penalty import Problem, gcv, gcv_many, least_score, reml, reml_many
from harmonization_app.algorithms.penalty_mgcv import gcv_search, reml_search
from harmonization_app.algorithms.penalty_start import Start
from harmonization_app.algorithms.smooth import distinct_knots, place_smooth
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    FeaturePool,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.verification import cross_check, max_difference_sd
from harmonization_app.algorithms.verification.reference import reference_cases
from harmonization_app.algorithms.verification.suite import make_input

AGE = (Covariate("age", "continuous"),)
ANYWHERE = OverlapPolicy(minimum_overlap=0.0, warn_smd_above=10.0)
PLAN = Specification(covariates=AGE, options={"smooths": {"age": {"basis_size": 10}}}, overlap=ANYWHERE)


def _with(plan: Specification, **options) -> Specification:
    return replace(plan, options={**plan.options, **options})


def _bent_data(seed: int = 4, scans: int = 120) -> tuple[Dataset, np.ndarray]:
    """Return three sites of unlike age, shifted, and the values without the shift."""
    random = np.random.default_rng(seed)
    sites = np.repeat(["old", "young", "all"], scans)
    ranges = ((55, 85), (25, 60), (25, 85))
    age = np.concatenate([random.uniform(*limits, scans) for limits in ranges])
    truth = 3 - 0.0012 * (age[:, None] - 25) ** 2 + random.normal(0, 0.1, (3 * scans, 20))
    shift = np.where(sites == "old", 0.3, np.where(sites == "young", -0.3, 0.0))
    dataset = Dataset(
        truth + shift[:, None],
        tuple(f"f{i}" for i in range(20)),
        tuple(f"r{i}" for i in range(3 * scans)),
        tuple(sites.tolist()),
        {"age": tuple(age.tolist())},
    )
    return dataset, truth


def _problem(seed: int, features: int = 40) -> Problem:
    random = np.random.default_rng(seed)
    root = np.diag(np.geomspace(0.01, 30.0, 8))
    signals = random.normal(0, 1, (8, features)) * np.geomspace(12, 0.8, 8)[:, None]
    return Problem((root,), signals, random.uniform(60, 140, features), np.ones(features), 120, 6)


def _only(problem: Problem, feature: int) -> Problem:
    own = [feature]
    return replace(
        problem,
        signals=problem.signals[:, own],
        unexplained=problem.unexplained[own],
        variances=problem.variances[own],
    )


@pytest.mark.reference
def test_published_results_are_equal_to_eleven_digits(reference_data) -> None:
    cases = list(reference_cases(reference_data / "harmonization", "combat-gam"))

    found = {
        case.name: max_difference_sd(
            CombatGam().harmonize(case.dataset, case.specification).values, case.expected, case.dataset.values
        )
        for case in cases
    }

    assert set(found) == {"i_gam__lifespan34/gcv", "i_gam__lifespan34/reml"}
    assert max(found.values()) < 1e-10


@pytest.mark.reference
def test_freedom_is_that_of_mgcv(reference_data) -> None:
    folder = reference_data / "harmonization"
    case = next(iter(reference_cases(folder, "combat-gam")))
    published = pd.read_csv(folder / "cases/i_gam__lifespan34/gam_edf.csv").set_index("feature")

    model = CombatGam().fit(case.dataset, case.specification)

    expected = published.loc[list(model.features), "edf_age"].to_numpy()
    assert np.abs(model.arrays["freedom"][0] - expected).max() < 1e-8
    units = model.arrays["log_penalties"][0] - np.log(published.loc[list(model.features), "sp"].to_numpy())
    assert np.ptp(units) < 1e-8


@pytest.mark.reference
def test_least_score_differs_from_mgcv_as_documented(reference_data) -> None:
    for case, most in zip(
        reference_cases(reference_data / "harmonization", "combat-gam"), (0.033, 0.061), strict=True
    ):
        result = CombatGam().harmonize(case.dataset, _with(case.specification, search="least"))

        difference = np.abs(result.values - case.expected) / case.dataset.values.std(axis=0)
        assert 0.9 * most < difference.max() < most
        assert np.median(difference.max(axis=0)) < 2e-3


def test_smooth_is_straight_beyond_its_data_and_bent_within() -> None:
    smooth = place_smooth(np.random.default_rng(2).uniform(20, 80, 150), 10)

    outside = smooth.columns(np.array([0.0, 10.0, 20.0 - 1e-9, 85.0, 95.0, 105.0]))

    assert np.abs(np.diff(outside[:3], 2, axis=0)).max() < 1e-8 * np.abs(outside).max()
    assert np.abs(np.diff(outside[3:], 2, axis=0)).max() < 1e-8 * np.abs(outside).max()
    assert np.abs(np.diff(smooth.columns(np.array([30.0, 50.0, 70.0])), 2, axis=0)).max() > 0.01


def test_penalty_is_the_integrated_squared_bend() -> None:
    smooth = place_smooth(np.linspace(0.0, 1.0, 60) ** 1.3, 8)
    grid = np.linspace(0.0, 1.0, 20001)
    weights = np.random.default_rng(3).normal(size=6)

    curve = smooth.columns(grid) @ weights
    bend = np.diff(curve, 2) / (grid[1] - grid[0]) ** 2
    roughness = np.sum(bend**2) * (grid[1] - grid[0])

    assert weights @ smooth.penalty @ weights == pytest.approx(roughness * smooth.spread**3, rel=1e-3)


def test_many_distinct_values_become_two_thousand_knots() -> None:
    values = np.random.default_rng(1).uniform(0, 1, 5000)

    knots = distinct_knots(values)

    assert len(knots) == 2000
    assert (knots[0], knots[-1]) == (values.min(), values.max())


@pytest.mark.parametrize("criterion", ["gcv", "reml"])
def test_derivatives_are_those_of_the_score(criterion) -> None:
    random = np.random.default_rng(5)
    roots = (random.normal(size=(7, 4)), random.normal(size=(7, 3)))
    problem = Problem(roots, random.normal(0, 3, (7, 2)), np.array([40.0, 50.0]), np.ones(2), 90, 5)
    point = np.array([-0.4, 0.9]) if criterion == "gcv" else np.array([-0.4, 0.9, 0.2])
    score = partial(gcv, problem, 1) if criterion == "gcv" else partial(reml, problem, 1, fixed=6)

    here = score(point)

    for axis, step in enumerate(1e-5 * np.eye(len(point))):
        slope = (score(point + step).score - score(point - step).score) / 2e-5
        bend = (score(point + step).gradient - score(point - step).gradient) / 2e-5
        assert here.gradient[axis] == pytest.approx(slope, abs=1e-7)
        assert here.hessian[axis] == pytest.approx(bend, abs=1e-7)


@pytest.mark.parametrize("criterion", ["gcv", "reml"])
def test_least_score_is_least(criterion) -> None:
    problem = _problem(6)

    found = least_score(problem, criterion)[0]

    def score(feature: int, log_penalty: float) -> float:
        if criterion == "gcv":
            return gcv(problem, feature, np.array([log_penalty])).score
        left = problem.scans - problem.fixed
        kept = 1 / (1 + np.exp(log_penalty) * problem.strengths[:, 0])
        squares = problem.unexplained[feature] + np.sum(problem.signals[:, feature] ** 2 * (1 - kept))
        return reml(problem, feature, np.array([log_penalty, np.log(squares / left)]), problem.fixed).score

    for feature, own in enumerate(found):
        best = min(score(feature, point) for point in np.arange(-30.0, 30.0, 0.5))
        near = minimize_scalar(partial(score, feature), bounds=(own - 1, own + 1), method="bounded")
        assert score(feature, own) <= min(best, near.fun) * (1 + 1e-12)


def test_without_penalty_and_with_the_heaviest_it_is_least_squares() -> None:
    dataset, _ = _bent_data()
    age = np.array(dataset.covariates["age"])
    codes = np.unique(dataset.batches, return_inverse=True)[1]
    grouping, smooth = group_rows(codes, 3), place_smooth(age, 6)
    whole = np.column_stack([age, smooth.columns(age)])
    columns = penalized_fit.Columns(whole, (slice(1, 5),), (smooth.penalty,))

    for log_penalty, design in ((-60.0, whole), (60.0, whole[:, :1])):
        found = penalized_fit.fit(
            dataset.values, grouping, columns, lambda problem, scans, own=log_penalty: np.full((1, 20), own)
        ).statistics
        expected = fit_statistics(dataset.values, grouping, design)

        assert found.residual_squares == pytest.approx(expected.residual_squares, rel=1e-9)
        assert found.intercepts == pytest.approx(expected.intercepts, rel=1e-9)


@pytest.mark.parametrize("penalty", ["gcv", "reml"])
@pytest.mark.parametrize("search", ["mgcv", "least"])
def test_bent_age_effect_is_not_taken_for_a_batch_effect(penalty, search) -> None:
    dataset, truth = _bent_data()
    sites = np.array(dataset.batches)

    def gap(values: np.ndarray) -> float:
        """Return the difference of the two sites' errors, 0 where only a common level is off."""
        error = (values - truth).mean(axis=1)
        return abs(float(error[sites == "old"].mean() - error[sites == "young"].mean()))

    straight = Combat().harmonize(dataset, Specification(covariates=AGE, overlap=ANYWHERE))
    bent = CombatGam().harmonize(dataset, _with(PLAN, penalty=penalty, search=search))

    assert gap(straight.values) > 0.1
    assert gap(bent.values) < 0.01


def test_two_planted_curves_are_both_kept() -> None:
    random = np.random.default_rng(8)
    sites = np.array(list("ABC"))[random.integers(0, 3, 300)]
    age, weight = random.uniform(20, 80, 300), random.uniform(50, 100, 300)
    curve = np.sin((age - 20) / 60 * np.pi) + ((weight - 75) / 25) ** 2
    truth = 5 + curve[:, None] * np.linspace(0.5, 1.5, 12) + random.normal(0, 0.1, (300, 12))
    dataset = Dataset(
        truth + 0.4 * (sites == "A")[:, None],
        tuple(f"f{i}" for i in range(12)),
        tuple(f"r{i}" for i in range(300)),
        tuple(sites.tolist()),
        {"age": tuple(age.tolist()), "weight": tuple(weight.tolist())},
    )
    both = replace(
        PLAN,
        covariates=(*AGE, Covariate("weight", "continuous")),
        options={"smooths": {"age": {}, "weight": {"basis_size": 6}}},
    )

    result = CombatGam().harmonize(dataset, both)

    error = result.values - truth
    spread = [error[sites == site].mean(axis=0) for site in "ABC"]
    assert np.ptp(spread, axis=0).max() < 0.06
    assert result.facts["smooths"]["age"]["least_freedom"] > 3
    assert result.facts["smooths"]["weight"]["least_freedom"] > 2


def test_straight_effect_keeps_the_smooth_straight() -> None:
    dataset, _ = _bent_data()
    age = np.array(dataset.covariates["age"])
    noise = np.random.default_rng(9).normal(0, 0.2, dataset.values.shape)
    straight = dataset.with_values(3 - 0.01 * age[:, None] + noise)
    plan = _with(PLAN, penalty="reml")

    result = CombatGam().harmonize(straight, plan)
    linear = Combat().harmonize(straight, Specification(covariates=AGE, overlap=ANYWHERE))

    assert result.facts["smooths"]["age"]["straight"] >= 8
    assert np.median(result.model.arrays["freedom"]) < 1.5
    assert max_difference_sd(result.values, linear.values, straight.values) < 0.2


def test_fit_repeats_bit_by_bit_and_survives_storage() -> None:
    dataset, _ = _bent_data()
    new = _bent_data(seed=11, scans=10)[0]

    first, second = CombatGam().fit(dataset, PLAN), CombatGam().fit(dataset, PLAN)

    assert save_model(first) == save_model(second)
    stored = load_model(save_model(first))
    applied = CombatGam().apply(stored, new).values
    assert np.array_equal(applied, CombatGam().apply(first, new).values)


def test_new_scans_are_corrected_with_their_own_age_and_flagged_beyond_it() -> None:
    dataset, _ = _bent_data()
    new, truth = _bent_data(seed=12, scans=200)
    model = CombatGam().fit(dataset, PLAN)
    low, high = model.coding.ranges["age"]
    new = replace(new, covariates={"age": tuple(np.clip(new.covariates["age"], low, high).tolist())})

    inside = CombatGam().apply(model, new)
    older = replace(new, covariates={"age": tuple(99.0 for _ in new.rows)})
    outside = CombatGam().apply(model, older)

    error = (inside.values - truth).mean(axis=1)
    sites = np.array(new.batches)
    assert abs(error[sites == "old"].mean() - error[sites == "young"].mean()) < 0.02
    assert "covariate_out_of_range" not in {finding.code for finding in inside.findings}
    flagged = [finding for finding in outside.findings if finding.code == "covariate_out_of_range"]
    assert [finding.columns for finding in flagged] == [("age",)]


def test_pools_share_no_prior() -> None:
    dataset = make_input({"A": 40, "B": 35, "C": 30}, seed=21)
    first, second = dataset.features[:5], dataset.features[5:]
    pooled = replace(PLAN, pools=(FeaturePool("first", first), FeaturePool("second", second)))

    together = CombatGam().harmonize(dataset, pooled).values
    apart = [CombatGam().harmonize(dataset, replace(PLAN, features=part)).values for part in (first, second)]

    assert max_difference_sd(together, np.hstack(apart), dataset.values) < 1e-12
    assert max_difference_sd(together, CombatGam().harmonize(dataset, PLAN).values, dataset.values) > 1e-4


def test_units_of_the_values_do_not_move_the_least_score() -> None:
    dataset = make_input({"A": 40, "B": 35, "C": 30}, seed=22)
    plan = _with(PLAN, search="least")

    metres = CombatGam().harmonize(dataset.with_values(dataset.values * 1e-3), plan).values * 1e3

    assert max_difference_sd(metres, CombatGam().harmonize(dataset, plan).values, dataset.values) < 1e-9


def test_constant_feature_passes_through() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    values = dataset.values.copy()
    values[:, 4] = 2.5

    result = CombatGam().harmonize(dataset.with_values(values), PLAN)

    assert np.array_equal(result.values[:, 4], values[:, 4])
    assert result.flags["constant"] == (dataset.features[4],)
    assert np.isnan(result.model.arrays["freedom"][0, 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'smooths' is a required property"),
        ({"smooths": {}}, "should be non-empty"),
        ({"smooths": {"sex": {}}}, "does not name as continuous"),
        ({"smooths": {"height": {}}}, "does not name as continuous"),
        ({"smooths": {"age": {"basis_size": 2}}}, "less than the minimum"),
        ({"smooths": {"age": {"size": 8}}}, "size"),
        ({"smooths": {"age": {}}, "penalty": "aic"}, "aic"),
        ({"smooths": {"age": {}}, "search": "random"}, "random"),
    ],
)
def test_faulty_smooths_are_refused(options, message) -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    plan = replace(PLAN, covariates=(*AGE, Covariate("sex", "categorical")), options=options)

    with pytest.raises(HarmonizationRefused, match=message):
        CombatGam().fit(dataset, plan)


def test_fewer_distinct_values_than_the_basis_are_refused() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    decades = replace(dataset, covariates={"age": tuple(float(40 + 10 * (i % 5)) for i in range(55))})

    with pytest.raises(HarmonizationRefused, match="age has 5 different values and carries no smooth of 10"):
        CombatGam().fit(decades, PLAN)

    accepted = _with(PLAN, smooths={"age": {"basis_size": 5}})
    assert CombatGam().fit(decades, accepted).facts["smooths"]["age"]["features"] == 12


def test_constant_covariate_is_refused() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    same = replace(dataset, covariates={"age": (60.0,) * 55})

    with pytest.raises(HarmonizationRefused, match="age"):
        CombatGam().fit(same, PLAN)


def test_more_columns_than_scans_are_refused() -> None:
    small = replace(PLAN, batch_size=BatchSizePolicy(2, 2, 2, 2, 1))

    with pytest.raises(HarmonizationRefused, match="11 scans do not determine 11 coefficients"):
        CombatGam().fit(make_input({"A": 6, "B": 5}, seed=3), small)


def test_least_score_of_two_smooths_is_refused() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    weight = tuple(np.random.default_rng(1).normal(70, 9, 55).tolist())
    two = replace(dataset, covariates={**dataset.covariates, "weight": weight})
    plan = replace(
        PLAN,
        covariates=(*AGE, Covariate("weight", "continuous")),
        options={"smooths": {"age": {}, "weight": {}}, "search": "least"},
    )

    with pytest.raises(HarmonizationRefused, match="knows one smooth"):
        CombatGam().fit(two, plan)


def _holed(dataset: Dataset) -> Dataset:
    """Return the dataset with 5 % of the cells of its first ten features missing."""
    values = dataset.values.copy()
    values[:, :10][np.random.default_rng(5).random((len(values), 10)) < 0.05] = np.nan
    return dataset.with_values(values)


def _in_years(dataset: Dataset) -> Dataset:
    """Return the dataset with ages in whole years, each of several scans, so that knots do not go with single scans."""
    return replace(dataset, covariates={"age": tuple(np.round(dataset.covariates["age"]).tolist())})


@pytest.mark.parametrize("penalty", ["gcv", "reml"])
@pytest.mark.parametrize("search", ["mgcv", "least"])
def test_feature_with_missing_cells_is_fitted_as_alone_on_the_scans_that_show_it(penalty, search) -> None:
    dataset = _holed(_in_years(_bent_data()[0]))
    plan = replace(_with(PLAN, penalty=penalty, search=search), eb=False)

    together = CombatGam().harmonize(dataset, plan)

    for feature in (2, 5, 14):
        shown = np.flatnonzero(~np.isnan(dataset.values[:, feature]))
        rows = dataset.select(shown)
        assert set(rows.covariates["age"]) == set(dataset.covariates["age"])
        alone = CombatGam().harmonize(rows, replace(plan, features=(dataset.features[feature],)))
        found = together.model.arrays["freedom"][0, feature]
        assert found == pytest.approx(alone.model.arrays["freedom"][0, 0], abs=1e-9)
        # The common level weighs the batches by their scans, which differ where some do not show the feature.
        difference = together.values[shown, feature] - alone.values[:, 0]
        assert np.ptp(difference) < 1e-10
    assert np.array_equal(np.isnan(together.values), np.isnan(dataset.values))


def test_missing_cells_leave_complete_features_as_they_are() -> None:
    dataset = _bent_data()[0]
    plan = replace(PLAN, eb=False)

    holed = CombatGam().harmonize(_holed(dataset), plan).values[:, 10:]

    whole = CombatGam().harmonize(dataset, plan).values[:, 10:]
    assert max_difference_sd(holed, whole, dataset.values[:, 10:]) < 1e-12


@pytest.mark.parametrize("holed", [False, True], ids=["complete", "holed"])
@pytest.mark.parametrize("penalty", ["gcv", "reml"])
@pytest.mark.parametrize("smooths", [("age",), ("age", "weight")])
def test_second_implementation_agrees_where_smooths_are_straight(penalty, smooths, holed) -> None:
    dataset = make_input({"A": 40, "B": 35, "C": 30}, seed=22)
    dataset = _holed(dataset) if holed else dataset
    weight = tuple(np.random.default_rng(1).normal(70, 9, len(dataset.rows)).round(1).tolist())
    dataset = replace(dataset, covariates={**dataset.covariates, "weight": weight})
    plan = replace(
        PLAN,
        covariates=(*(Covariate(name, "continuous") for name in smooths), Covariate("sex", "categorical")),
        options={"smooths": {name: {"basis_size": 6} for name in smooths}, "penalty": penalty},
    )

    result = CombatGam().harmonize(dataset, plan)

    assert (result.facts["missing_cells"] > 0) == holed
    assert cross_check(dataset, result, 1e-10).passed


def test_missing_cell_is_refused_by_row_where_the_plan_says_so() -> None:
    dataset = make_input({"A": 30, "B": 25}, seed=3)
    values = dataset.values.copy()
    values[7, 2] = np.nan

    with pytest.raises(HarmonizationRefused, match=dataset.rows[7]):
        CombatGam().fit(dataset.with_values(values), replace(PLAN, missing_values="refuse"))


def test_scans_of_too_few_ages_do_not_determine_a_smooth() -> None:
    dataset = _in_years(_bent_data()[0])
    values = dataset.values.copy()
    age = np.array(dataset.covariates["age"])
    kept = np.isin(age, [30, 35, 45, 50, 58, 60, 65, 70])
    values[~kept, 4] = np.nan
    lacking = dataset.with_values(values)

    with pytest.raises(HarmonizationRefused, match="do not determine the covariates' effects: f4"):
        CombatGam().fit(lacking, PLAN)

    passed = CombatGam().harmonize(lacking, replace(PLAN, unusable_features="pass_through"))
    assert passed.flags["unusable"] == ("f4",)
    assert np.array_equal(passed.values[:, 4], values[:, 4], equal_nan=True)
    assert np.isnan(passed.model.arrays["freedom"][0, 4])


def test_batches_of_few_ages_each_do_not_determine_a_smooth() -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 40, "D": 40}, seed=3)
    steps = {"A": 0.0, "B": 0.7, "C": 1.4, "D": 2.1}
    age = tuple(50 + steps[site] + 4 * (i % 3) for i, site in enumerate(dataset.batches))
    visits = replace(dataset, covariates={"age": age})

    with pytest.raises(HarmonizationRefused, match="Within the batches age has too few different values"):
        CombatGam().fit(visits, PLAN)

    assert CombatGam().fit(visits, _with(PLAN, smooths={"age": {"basis_size": 9}})).facts["features"] == 12


def test_scores_evaluated_together_are_those_evaluated_alone() -> None:
    problem = _problem(7, features=6)
    random = np.random.default_rng(13)
    features = [4, 0, 3]
    points = [random.normal(0, 3, 2) for _ in features]

    for feature, point, own, together in zip(
        features,
        points,
        gcv_many(problem, features, [point[:1] for point in points]),
        reml_many(problem, features, points, 7),
        strict=True,
    ):
        for found, alone in (
            (own, gcv(problem, feature, point[:1])),
            (together, reml(problem, feature, point, 7)),
        ):
            assert found.score == pytest.approx(alone.score, rel=1e-12)
            assert found.gradient == pytest.approx(alone.gradient, rel=1e-9, abs=1e-12)
            assert found.hessian == pytest.approx(alone.hessian, rel=1e-9, abs=1e-12)
            assert found.variance == pytest.approx(alone.variance, rel=1e-12)


@pytest.mark.parametrize("search", [gcv_search, reml_search])
def test_search_that_begins_at_its_end_stays_there(search) -> None:
    problem = _problem(14, features=30)
    start = Start(np.array([0.4]), 0, 0.0)

    ends = search(problem, start)[0]
    for feature, end in enumerate(ends):
        again = search(_only(problem, feature), replace(start, log_penalties=np.array([end])))[0, 0]
        assert np.isfinite(again)

    zero = Problem(problem.roots, np.zeros((8, 2)), np.ones(2), np.ones(2), 120, 6)
    assert np.isfinite(search(zero, start)).all()


@pytest.mark.parametrize(
    ("options", "feature"),
    [({}, 3280), ({"search": "least"}, 733), ({"search": "least", "penalty": "reml"}, 733)],
)
def test_two_searches_agree_where_a_score_has_two_minima(options, feature):
    # Of 4,000 simulated features these have a second minimum, reached or not by rounding and by where a grid begins.
    random, batch = np.random.default_rng(1), np.arange(300) % 6
    age, sex = random.uniform(40, 85, 300), random.integers(0, 2, 300)
    values = random.normal(0, 1, (300, 4000)) + np.sin(age / 15)[:, None] * random.normal(0, 1, 4000)
    values += 0.02 * (age - 60)[:, None] * random.normal(0, 1, 4000)
    values += random.normal(0, 0.5, (6, 4000))[batch]
    dataset = Dataset(
        values[:, [feature, 0, 1]],
        ("a", "b", "c"),
        tuple(f"r{row}" for row in range(300)),
        tuple(f"B{index}" for index in batch),
        {"age": tuple(age.tolist()), "sex": tuple("FM"[index] for index in sex)},
    )
    specification = Specification.from_json(
        {
            "covariates": [
                {"name": "age", "kind": "continuous"},
                {"name": "sex", "kind": "categorical", "levels": ["F", "M"]},
            ],
            "options": {"smooths": {"age": {"basis_size": 10}}, **options},
        }
    )

    result = CombatGam().harmonize(dataset, specification)

    assert cross_check(dataset, result, 1e-9).passed
