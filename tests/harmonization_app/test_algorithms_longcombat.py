"""Longitudinal ComBat: planted batch effects and within-subject change, mixed models, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.longcombat import LongCombat
from harmonization_app.algorithms.longitudinal import batch_components
from harmonization_app.algorithms.mixed_model import fit_random_intercept, fit_random_slope
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification import cross_check, max_difference_sd
from harmonization_app.algorithms.verification.methods.longcombat import make_longitudinal

PLAN = Specification(
    covariates=(Covariate("age", "continuous"), Covariate("years", "continuous")),
    subject="subject",
    time="years",
)
SLOPE = replace(PLAN, options={"random_slope": True})


@pytest.fixture
def dataset():
    return make_longitudinal(60, seed=5)


def _codes(dataset, plan) -> list[str]:
    with pytest.raises(HarmonizationRefused) as refusal:
        LongCombat().harmonize(dataset, plan)
    return [finding.code for finding in refusal.value.findings if finding.severity == "stop"]


def _excess(dataset, values) -> float:
    """Return how much larger the mean squared change between visits is where the scanner changed as well."""
    subjects, scanners = np.array(dataset.covariates["subject"]), np.array(dataset.batches)
    squares = ((values[1:] - values[:-1]) ** 2).mean(axis=1)[subjects[1:] == subjects[:-1]]
    changed = (scanners[1:] != scanners[:-1])[subjects[1:] == subjects[:-1]]
    return float(squares[changed].mean() - squares[~changed].mean())


@pytest.mark.parametrize("plan", [PLAN, SLOPE], ids=["intercept", "slope"])
def test_jumps_at_scanner_changes_go(dataset, plan) -> None:
    result = LongCombat().harmonize(dataset, plan)

    assert _excess(dataset, dataset.values) > 0.005
    assert abs(_excess(dataset, result.values)) < 0.2 * _excess(dataset, dataset.values)


def test_change_over_time_is_preserved(dataset) -> None:
    result = LongCombat().harmonize(dataset, SLOPE)

    years = np.array(dataset.covariates["years"])
    before, after = (np.polyfit(years, values, 1)[0] for values in (dataset.values, result.values))
    assert np.abs(after - before).max() < 0.01


@pytest.mark.parametrize("plan", [PLAN, SLOPE], ids=["intercept", "slope"])
def test_one_value_in_a_batch_keeps_its_scale_and_is_flagged(dataset, plan) -> None:
    failed = np.array(dataset.batches) == "b"
    values = dataset.values.copy()
    values[failed, 2] = 2.3
    dataset = dataset.with_values(values)

    result = LongCombat().harmonize(dataset, plan)

    assert result.model.arrays["delta_star"][1, 2] == 1.0
    assert result.flags["constant_in_batch"] == ("region_02",)
    assert np.ptp(result.values[failed, 2]) < 1e-12
    assert np.ptp(LongCombat().apply(result.model, dataset).values[failed, 2]) < 1e-12
    assert cross_check(dataset, result, 1e-2 if plan is SLOPE else LongCombat.tolerance_sd).passed


def test_random_intercept_of_a_balanced_design_is_that_of_the_analysis_of_variance() -> None:
    random = np.random.default_rng(3)
    subjects = np.repeat(np.arange(40), 5)
    values = random.normal(0, 0.8, 40)[subjects][:, None] + random.normal(0, 0.5, (200, 3))

    fit = fit_random_intercept(values, np.ones((200, 1)), subjects)

    means = values.reshape(40, 5, 3).mean(axis=1)
    within = ((values - means[subjects]) ** 2).sum(axis=0) / 160
    between = 5 * means.var(axis=0, ddof=1)
    assert fit.deviation**2 == pytest.approx(within, rel=1e-7)
    assert (fit.factor[:, 0] ** 2) == pytest.approx((between / within - 1) / 5, rel=1e-6)


def test_no_variance_between_subjects_is_singular() -> None:
    random = np.random.default_rng(3)
    subjects = np.repeat(np.arange(30), 4)
    residual = random.normal(0, 1, (30, 4))
    residual -= residual.mean(axis=1, keepdims=True)

    fit = fit_random_intercept(residual.reshape(-1, 1), np.ones((120, 1)), subjects)

    assert fit.factor[0, 0] == 0
    assert fit.singular.tolist() == [True]


@pytest.mark.reference
def test_slopes_are_singular_where_lme4_says_so(reference_data) -> None:
    folder = reference_data / "harmonization"
    table = pd.read_csv(folder / "data/long20/input.csv.gz")
    published = pd.read_csv(folder / "cases/f_long_REML_slope__long20/est_lmer.csv.gz")
    decline = (table["dx"] == "MCI").astype(float)
    fixed = [
        np.ones(len(table)),
        table["age0"],
        table["sex"] == "M",
        decline,
        table["time"],
        decline * table["time"],
    ]
    fixed += [table["scanner"] == name for name in ("scanB", "scanC", "scanD")]
    values = table[list(published["feature"])].to_numpy(np.float64)
    subjects = np.unique(table["subject"], return_inverse=True)[1]

    fit = fit_random_slope(values, np.column_stack(fixed).astype(float), subjects, table["time"].to_numpy())

    assert fit.singular.tolist() == published["singular"].tolist()
    assert np.abs(fit.deviation / published["sigma"] - 1).max() < 1e-7


def test_singular_fits_are_flagged_by_feature(dataset) -> None:
    straight = dataset.values.copy()
    subjects = np.unique(dataset.covariates["subject"], return_inverse=True)[1]
    random = np.random.default_rng(1)
    straight[:, 2] = 2 + random.normal(0, 0.2, 60)[subjects] + np.tile([0.05, -0.05, -0.05, 0.05], 60)
    straight[:, 2] += random.normal(0, 0.01, 240)

    result = LongCombat().harmonize(dataset.with_values(straight), SLOPE)

    assert "region_02" in result.flags["singular_fit"]
    assert result.facts["singular_fits"] == len(result.flags["singular_fit"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject": None}, "parameter_not_supported"),
        ({"subject": "person"}, "column_lacking"),
        ({"time": None, "options": {"random_slope": True}}, "time_lacking"),
        ({"options": {"interactions": [["age", "weight"]]}}, "interaction_unknown"),
        ({"eb": False}, "parameter_not_supported"),
        ({"options": {"interactions": [["age", "age"], ["age", "age"]]}}, "parameter_not_supported"),
    ],
)
def test_faulty_plans_are_refused(dataset, change, code) -> None:
    assert _codes(dataset, replace(PLAN, **change)) == [code]


def test_missing_subject_is_named_by_row(dataset) -> None:
    subjects = (None, *dataset.covariates["subject"][1:])
    holed = replace(dataset, covariates={**dataset.covariates, "subject": subjects})

    with pytest.raises(HarmonizationRefused, match="subject is missing or unreadable in P000/0"):
        LongCombat().harmonize(holed, PLAN)


def test_one_scan_per_subject_is_refused(dataset) -> None:
    once = dataset.select(range(0, 240, 4))

    assert _codes(once, replace(PLAN, covariates=PLAN.covariates[:1])) == ["no_repeated_scans"]


def test_interaction_determined_by_others_is_refused(dataset) -> None:
    plan = replace(
        PLAN,
        covariates=(*PLAN.covariates, Covariate("group", "categorical")),
        options={"interactions": [["years", "group"], ["group", "years"]]},
    )

    assert _codes(dataset, plan) == ["collinear_covariates"]


def test_batch_without_a_shared_subject_is_named(dataset) -> None:
    subjects = np.array(dataset.covariates["subject"])
    kept = ~np.isin(subjects, subjects[np.array(dataset.batches) == "c"]) | (np.array(dataset.batches) == "c")
    apart = dataset.select(np.flatnonzero(kept))

    findings = LongCombat().validate(apart, PLAN)

    assert [finding.batches for finding in findings if finding.code == "batches_not_connected"] == [("c",)]


def test_batches_are_connected_through_a_third() -> None:
    component = batch_components(4, np.array([0, 1, 1, 2, 3]), np.array([0, 0, 1, 1, 2]))

    assert component.tolist() == [0, 0, 0, 3]


@pytest.mark.parametrize("plan", [PLAN, SLOPE, replace(PLAN, options={"residual_scale": "MSR"})], ids=str)
def test_fitted_scans_come_back_as_when_fitted(dataset, plan) -> None:
    result = LongCombat().harmonize(dataset, plan)
    order = np.random.default_rng(2).permutation(len(dataset.rows))

    again = LongCombat().apply(load_model(save_model(result.model)), dataset.select(order))

    assert max_difference_sd(again.values, result.values[order], dataset.values) < 1e-11


def _halves(seed: int):
    """Return scans of 60 subjects to fit and of 40 others at the same scanners."""
    whole = make_longitudinal(100, seed)
    subjects = np.unique(whole.covariates["subject"], return_inverse=True)[1]
    return whole.select(np.flatnonzero(subjects < 60)), whole.select(np.flatnonzero(subjects >= 60))


@pytest.mark.parametrize("plan", [PLAN, SLOPE], ids=["intercept", "slope"])
def test_jumps_of_new_subjects_go_by_a_frozen_model(plan) -> None:
    left = []
    for seed in range(5, 17):
        fitted, new = _halves(seed)
        values = LongCombat().apply(LongCombat().fit(fitted, plan), new).values
        left.append(_excess(new, values) / _excess(new, new.values))

    assert abs(np.mean(left)) < 0.12


def test_a_single_new_scan_is_corrected_by_what_the_population_tells() -> None:
    fitted, new = _halves(5)
    model = LongCombat().fit(fitted, PLAN)
    first = new.select(np.unique(new.covariates["subject"], return_index=True)[1])

    alone = LongCombat().apply(model, first)
    with_later = LongCombat().apply(model, new).values[[new.rows.index(row) for row in first.rows]]

    assert [finding.code for finding in alone.findings][-1] == "subject_with_one_scan"
    changed, differing = first.values - with_later, alone.values - with_later
    assert np.sqrt((differing**2).mean()) < 0.3 * np.sqrt((changed**2).mean())


def test_correction_of_new_scans_does_not_need_their_later_ones_to_be_those_fitted(dataset) -> None:
    result = LongCombat().harmonize(dataset, PLAN)
    renamed = tuple(f"new{name}" for name in dataset.covariates["subject"])
    others = replace(dataset, covariates={**dataset.covariates, "subject": renamed})

    assert np.array_equal(
        LongCombat().apply(result.model, others).values, LongCombat().apply(result.model, dataset).values
    )


def test_new_scans_without_subject_or_batch_are_refused(dataset) -> None:
    model = LongCombat().fit(dataset, SLOPE)
    for change, message in (
        ({"batches": ("z", *dataset.batches[1:])}, "knows no batch z"),
        (
            {"covariates": {**dataset.covariates, "subject": (None, *dataset.covariates["subject"][1:])}},
            "P000/0",
        ),
        ({"covariates": {**dataset.covariates, "years": (None, *dataset.covariates["years"][1:])}}, "years"),
    ):
        with pytest.raises(HarmonizationRefused, match=message):
            LongCombat().apply(model, replace(dataset, **change))


@pytest.mark.parametrize("kind", ["batch", "covariate", "rounding"])
def test_a_feature_that_leaves_only_rounding_is_refused(dataset, kind) -> None:
    values = dataset.values.copy()
    values[:, 2] = {
        "batch": [1.1 * "abc".index(batch) for batch in dataset.batches],
        "covariate": [1.3 * float(age) for age in dataset.covariates["age"]],
        "rounding": 7.0 + 1e-15 * values[:, 2],
    }[kind]

    with np.errstate(all="ignore"):
        assert _codes(dataset.with_values(values), PLAN) == ["feature_not_estimable"]
