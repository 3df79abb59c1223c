"""Effects before and after: agreement with published figures and scipy, held-out evidence, movers, projection."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import build_design
from harmonization_app.algorithms.neurocombat import NeuroCombat
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.verification.reference import reference_cases
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics.batch_tests import measure_batch_effects, summarize
from harmonization_app.diagnostics.covariate_effects import covariate_effects
from harmonization_app.diagnostics.heldout import evaluate_held_out
from harmonization_app.diagnostics.movers import find_movers
from harmonization_app.diagnostics.projection import project, usable_columns
from harmonization_app.diagnostics.regression import regress

SPECIFICATION = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_input({"A": 40, "B": 30, "C": 50}, seed=8)


@pytest.fixture(scope="module")
def report(dataset):
    return Combat().diagnose(dataset, SPECIFICATION, Combat().harmonize(dataset, SPECIFICATION))


@pytest.mark.reference
@pytest.mark.parametrize("data", ["ct68", "ct400"])
def test_published_diagnostics_are_reproduced(reference_data, data) -> None:
    folder = reference_data / "harmonization"
    case = next(case for case in reference_cases(folder) if case.name == f"a_eb__{data}")
    result = Combat().harmonize(case.dataset, case.specification)
    published = pd.read_csv(folder / f"diagnostics__{data}" / "per_feature.csv.gz").set_index(
        ["stage", "feature"]
    )
    components = pd.read_csv(folder / f"diagnostics__{data}" / "pca_importance.csv").set_index("stage")

    report = Combat().diagnose(case.dataset, case.specification, result)

    figures = {
        "anova_site_F": "partial_f",
        "anova_site_p": "p",
        "partial_eta2_site": "partial_eta_squared",
        "kruskal_p": "kruskal_p",
        "levene_median_p": "levene_p",
    }
    names = list(case.dataset.features)
    ages = [effect for effect in report.covariates if effect.covariate == "age"]
    for stage, own, side in (("raw", report.before, "before"), ("combat_eb", report.after, "after")):
        expected = published.loc[stage].loc[names]
        for column, figure in figures.items():
            values = [getattr(test, figure) for test in own.tests]
            np.testing.assert_allclose(values, expected[column], rtol=1e-9, err_msg=column)
        np.testing.assert_allclose(
            [getattr(age, side).value for age in ages], expected["age_beta"], rtol=1e-9
        )
        np.testing.assert_allclose([getattr(age, side).t for age in ages], expected["age_t"], rtol=1e-9)
        np.testing.assert_allclose(own.projection.explained, components.loc[stage], atol=6e-6)
    adjusted = published.loc["raw"].loc[names, "age_beta_site_adj"]
    np.testing.assert_allclose([age.batch_adjusted.value for age in ages], adjusted, rtol=1e-9)


def test_without_covariates_the_tests_are_those_of_scipy(dataset) -> None:
    labels = np.array(dataset.batches)
    codes = np.unique(labels, return_inverse=True)[1]
    holes = dataset.values.copy()
    holes[[3, 9, 40], [0, 0, 2]] = np.nan

    tests = measure_batch_effects(holes, codes, np.empty((len(codes), 0)), dataset.features)

    for column, test in enumerate(tests):
        seen = ~np.isnan(holes[:, column])
        groups = [holes[seen & (codes == code), column] for code in range(3)]
        f = stats.f_oneway(*groups)
        assert test.partial_f == pytest.approx(f.statistic, rel=1e-9)
        assert test.p == pytest.approx(f.pvalue, rel=1e-9)
        assert test.variance_explained == pytest.approx(test.partial_eta_squared, rel=1e-9)
        assert test.kruskal_p == pytest.approx(stats.kruskal(*groups).pvalue, rel=1e-7)
        assert test.levene_p == pytest.approx(stats.levene(*groups).pvalue, rel=1e-7)
    adjusted = stats.false_discovery_control([test.p for test in tests])
    assert [test.q for test in tests] == pytest.approx(adjusted.tolist())


def test_kruskal_corrects_for_ties() -> None:
    values = np.array([1, 1, 2, 2, 3, 1, 2, 3, 3, 3, 4, 4], dtype=float)[:, None]
    codes = np.repeat([0, 1, 2], 4)

    test = measure_batch_effects(values, codes, np.empty((12, 0)), ["f"])[0]

    # Residuals from the mean keep the ties and the ranks.
    assert test.kruskal_p == pytest.approx(stats.kruskal(*values.reshape(3, 4)).pvalue, rel=1e-9)


def test_constant_feature_has_no_figures() -> None:
    values = np.column_stack([np.full(20, 0.1), np.random.default_rng(0).normal(size=20)])

    tests = measure_batch_effects(values, np.repeat([0, 1], 10), np.empty((20, 0)), ["a", "b"])
    constant, other = tests

    assert {value for name, value in constant.to_json().items() if name != "feature"} == {None}
    assert other.p is not None
    assert summarize(tests).tested == 1


def test_regression_agrees_with_least_squares_by_definition() -> None:
    random = np.random.default_rng(2)
    design = np.column_stack([np.ones(30), random.normal(size=(30, 2))])
    values = random.normal(size=(30, 3)) + 1e5
    values[4, 1] = np.nan

    fit = regress(design, values)

    for column in range(3):
        seen = ~np.isnan(values[:, column])
        own, target = design[seen], values[seen, column]
        coefficients = np.linalg.lstsq(own, target, rcond=None)[0]
        squares = np.sum((target - own @ coefficients) ** 2)
        errors = np.sqrt(np.diag(np.linalg.inv(own.T @ own)) * squares / (seen.sum() - 3))
        np.testing.assert_allclose(fit.coefficients[:, column], coefficients, rtol=1e-8)
        np.testing.assert_allclose(fit.errors[:, column], errors, rtol=1e-7)
        assert fit.degrees[column] == seen.sum() - 3


def test_design_that_is_not_determined_gives_no_figures() -> None:
    design = np.column_stack([np.ones(10), np.arange(10.0), 2 * np.arange(10.0)])

    assert np.isnan(regress(design, np.ones((10, 1))).coefficients).all()


def test_report_shows_the_batch_effect_go_in_sample_and_held_out(report) -> None:
    assert report.before.summary.mean_effect == 12
    assert report.after.summary.mean_effect == 0
    held_out = report.held_out
    assert held_out.evaluable
    assert len(held_out.splits) == 5
    assert held_out.fitted_after < held_out.held_out_after < held_out.held_out_before / 2
    assert held_out.noise_floor == pytest.approx(stats.beta.median(1, 55 / 2))


def test_covariate_effects_stay_within_the_batch_adjusted_interval(report, dataset) -> None:
    age = [effect for effect in report.covariates if effect.covariate == "age"]

    assert len(age) == len(dataset.features)
    assert sum(effect.preserved for effect in age) == len(age)
    for effect in age:
        assert effect.after.low < effect.after.value < effect.after.high


def test_confidence_interval_is_that_of_scipy(dataset) -> None:
    age = np.array(dataset.covariates["age"])
    codes = np.unique(np.array(dataset.batches), return_inverse=True)[1]

    effects = covariate_effects(
        dataset.values, dataset.values, codes, age[:, None], ["age"], dataset.features
    )

    line = stats.linregress(age, dataset.values[:, 0])
    margin = stats.t.ppf(0.975, len(age) - 2) * line.stderr
    before = effects.listed([0])[0].before
    assert before.value == pytest.approx(line.slope)
    assert before.error == pytest.approx(line.stderr)
    assert before.low == pytest.approx(line.slope - margin)
    assert before.high == pytest.approx(line.slope + margin)


def test_held_out_is_repeatable_and_follows_the_seed(dataset) -> None:
    first = evaluate_held_out(Combat(), dataset, SPECIFICATION)

    assert evaluate_held_out(Combat(), dataset, SPECIFICATION) == first
    assert evaluate_held_out(Combat(), dataset, replace(SPECIFICATION, seed=1)) != first


def test_held_out_says_why_it_is_not_evaluable(dataset) -> None:
    unable = evaluate_held_out(NeuroCombat(), dataset, SPECIFICATION)
    labels = np.array(dataset.batches)
    few = dataset.select([*np.flatnonzero(labels != "B"), *np.flatnonzero(labels == "B")[:5]])
    lowered = replace(
        SPECIFICATION, batch_size=BatchSizePolicy(2, 2, 2), overlap=OverlapPolicy(minimum_overlap=0.0)
    )

    small = evaluate_held_out(Combat(), few, lowered)

    assert (unable.evaluable, small.evaluable) == (False, False)
    assert "not fitted on" in unable.reason
    assert "fewer than 6 scans" in small.reason
    assert unable.held_out_after is None


def test_neurocombat_can_be_diagnosed(dataset) -> None:
    result = NeuroCombat().harmonize(dataset, SPECIFICATION)

    report = NeuroCombat().diagnose(dataset, SPECIFICATION, result)

    assert report.after.summary.mean_effect == 0
    assert not report.held_out.evaluable


def test_movers_name_the_largest_shift(dataset) -> None:
    after = dataset.values.copy()
    spread = dataset.values.std(axis=0)
    after[7, 3] += 3 * spread[3]
    after[9, 1] = -0.5
    after[11, 2] = np.nan

    movers = find_movers(dataset, after)

    assert movers.largest[0].row == "S009"
    assert (movers.largest[1].row, movers.largest[1].feature) == ("S007", "region_03")
    assert movers.largest[1].shift_sd == pytest.approx(3.0)
    assert [mover.row for mover in movers.turned_non_positive] == ["S009"]
    assert movers.cells_turned_non_positive == 1
    assert movers.quantiles_sd["0.5"] == 0.0


def test_projection_is_that_of_the_singular_values_with_a_fixed_sign(dataset) -> None:
    codes = np.unique(np.array(dataset.batches), return_inverse=True)[1]
    columns = usable_columns(dataset.values, dataset.values)

    projection = project(dataset.values, codes, ("A", "B", "C"), dataset.rows, columns)

    standard = (dataset.values - dataset.values.mean(axis=0)) / dataset.values.std(axis=0, ddof=1)
    left, singular, right = np.linalg.svd(standard, full_matrices=False)
    signs = np.sign(right[np.arange(5), np.abs(right[:5]).argmax(axis=1)])
    np.testing.assert_allclose(projection.scores, left[:, :5] * singular[:5] * signs, atol=1e-9)
    np.testing.assert_allclose(projection.explained, (singular**2 / np.sum(singular**2))[:5])
    assert projection.batches[0] == dataset.batches[0]


def test_projection_leaves_incomplete_and_constant_features_out(dataset) -> None:
    values = dataset.values.copy()
    values[0, 0] = np.nan
    values[:, 1] = 1.0

    columns = usable_columns(values, values)

    assert columns.tolist() == [False, False, *[True] * 10]
    codes = np.unique(np.array(dataset.batches), return_inverse=True)[1]
    assert project(values, codes, "ABC", dataset.rows, columns).features == 10
    assert project(values, codes, "ABC", dataset.rows, columns & False) is None


def test_report_is_json_that_tells_in_sample_from_held_out(report) -> None:
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))

    assert "look perfect" in document["in_sample"]["note"]
    assert document["held_out"]["evaluable"] is True
    assert [item["batch"] for item in document["batches"]] == ["A", "B", "C"]


def test_report_with_missing_cells_and_pass_through(dataset) -> None:
    values = dataset.values.copy()
    values[:, 4] = 2.0
    values[3, 5] = np.nan
    holes = dataset.with_values(values)

    report = Combat().diagnose(holes, SPECIFICATION, Combat().harmonize(holes, SPECIFICATION))

    assert report.after.tests[4].p is None
    assert report.after.tests[5].p is not None
    assert build_design(holes, SPECIFICATION).batches == ("A", "B", "C")
    json.dumps(report.to_json(), allow_nan=False)
