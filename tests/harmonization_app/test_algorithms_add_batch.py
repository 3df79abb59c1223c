"""Adding a batch: published results, the others untouched, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harmonization_app.algorithms.add_batch import add_batch, explain_new_batch
from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.registry import ALGORITHMS, describe
from harmonization_app.algorithms.specification import Covariate, FeaturePool, Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.plain import Modes, plain_fit, plain_fitted
from harmonization_app.algorithms.verification.reference import reference_cases
from harmonization_app.algorithms.verification.suite import load_suite, make_input

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))

NAMES = tuple(f"region_{i:02d}" for i in range(12))
POOLS = (FeaturePool("one", NAMES[:5]), FeaturePool("two", NAMES[5:]))


@pytest.fixture
def dataset():
    return make_input({"A": 40, "B": 40, "C": 30}, seed=3)


def _parts(dataset):
    new = np.array(dataset.batches) == "C"
    return dataset.select(np.flatnonzero(~new)), dataset.select(np.flatnonzero(new))


@pytest.mark.reference
def test_published_new_sites_are_reproduced(reference_data) -> None:
    folder = reference_data / "harmonization"
    cases = [case for case in reference_cases(folder) if case.kind == "k"]
    assert len(cases) == 3
    for case in cases:
        published = pd.read_csv(folder / f"cases/{case.name}/expected_apply_new_site.csv.gz").set_index(
            "subject"
        )
        rows = [case.dataset.rows.index(str(subject)) for subject in published.index]
        model = Combat().fit(case.dataset.select(case.train), case.specification)

        new = case.dataset.select(rows)
        values = Combat().apply(add_batch(model, new), new).values

        expected = published[list(case.dataset.features)].to_numpy(np.float64)
        difference = np.abs(values - expected) / case.dataset.values.std(axis=0)
        assert difference.max() < 1e-11


@pytest.mark.parametrize("change", [{}, {"eb": False}, {"mean_only": True}, {"parametric": False}])
def test_other_batches_are_left_alone(dataset, change) -> None:
    known, new = _parts(dataset)
    model = Combat().fit(known, replace(PLAN, **change))

    extended = load_model(save_model(add_batch(model, new)))

    before, after = Combat().apply(model, known).values, Combat().apply(extended, known).values
    assert np.array_equal(before, after)
    assert extended.batches == ("A", "B", "C")
    assert extended.facts["added_batches"][0]["scans"] == 30


def test_added_batch_is_close_to_one_fitted_with_the_others(dataset) -> None:
    known, new = _parts(dataset)

    added = Combat().apply(add_batch(Combat().fit(known, PLAN), new), new).values
    together = Combat().harmonize(dataset, PLAN).values[np.array(dataset.batches) == "C"]

    assert max_difference_sd(new.values, together, dataset.values) > 0.5
    assert np.abs((added - added.mean(axis=0)) - (together - together.mean(axis=0))).max() < 0.15
    assert np.abs(added.mean(axis=0) - Combat().harmonize(known, PLAN).values.mean(axis=0)).max() < 0.1


def _in(values: np.ndarray, dataset, name: str) -> np.ndarray:
    return values[np.array(dataset.batches) == name]


@pytest.mark.parametrize(
    "change", [{}, {"mean_only": True}, {"parametric": False}, {"pools": POOLS}], ids=str
)
def test_with_a_reference_batch_and_no_covariates_it_is_fitting_all_together(dataset, change) -> None:
    known, new = _parts(dataset)
    plan = replace(PLAN, covariates=(), reference_batch="B", **change)

    extended = add_batch(Combat().fit(known, plan), new)
    together = Combat().harmonize(dataset, plan)

    assert (
        max_difference_sd(Combat().apply(extended, dataset).values, together.values, dataset.values) < 1e-11
    )
    assert {pool: dict(steps) for pool, steps in extended.iterations.items()} == together.iterations


def test_missing_cells_are_counted_by_feature(dataset) -> None:
    values = dataset.values.copy()
    values[np.random.default_rng(3).random(values.shape) < 0.1] = np.nan
    holed = dataset.with_values(values)
    known, new = _parts(holed)
    plan = replace(PLAN, covariates=(), reference_batch="B")

    extended = add_batch(Combat().fit(known, plan), new)

    together = Combat().harmonize(holed, plan).values
    assert max_difference_sd(Combat().apply(extended, holed).values, together, values) < 1e-11


def test_added_batch_is_picked_from_a_whole_table(dataset) -> None:
    known, new = _parts(dataset)
    model = Combat().fit(known, PLAN)

    assert save_model(add_batch(model, dataset, "C")) == save_model(add_batch(model, new))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("combat-spline", {"splines": {"age": 3}}),
        ("combat-gam", {"smooths": {"age": {}}}),
        ("dcombat", {}),
    ],
)
def test_kin_of_combat_add_a_batch_with_their_own_covariate_columns(dataset, name, options) -> None:
    known, new = _parts(dataset)
    levels = (Covariate("age", "continuous"), Covariate("sex", "categorical", "F", ("F", "M")))
    plan = replace(PLAN, covariates=levels, options=options)
    algorithm = ALGORITHMS[name]
    model = algorithm.fit(known, plan)

    extended = load_model(save_model(add_batch(model, new)))

    assert np.array_equal(algorithm.apply(extended, known).values, algorithm.apply(model, known).values)
    added = algorithm.apply(extended, new).values
    together = _in(algorithm.harmonize(dataset, plan).values, dataset, "C")
    assert max_difference_sd(new.values, together, dataset.values) > 0.5
    assert np.abs((added - added.mean(axis=0)) - (together - together.mean(axis=0))).max() < 0.15
    assert np.abs(added.mean(axis=0) - algorithm.harmonize(known, plan).values.mean(axis=0)).max() < 0.1


def test_added_batch_by_plain_formulas(dataset) -> None:
    """Standardize by the frozen fit, shrink with the published posterior means, put back."""
    known, new = _parts(dataset)
    plan = replace(PLAN, parametric=True)
    extended = add_batch(Combat().fit(known, plan), new)

    labels, design = plain_batches(known, plan), plain_covariates(known, plan)
    fit = plain_fit(known.values, labels, design, {"all": np.arange(12)}, Modes())
    own = plain_covariates(new, plan, known)
    standard = (new.values - plain_fitted(fit, own)) / fit.sd
    mean, variance = standard.mean(axis=0), standard.var(axis=0, ddof=1)
    g, d = mean, variance
    centre, spread = variance.mean(), variance.var(ddof=1)
    for _ in range(extended.iterations["all"]["C"]):
        g = (30 * mean.var(ddof=1) * mean + d * mean.mean()) / (30 * mean.var(ddof=1) + d)
        rate = (centre * spread + centre**3) / spread
        d = (rate + 0.5 * ((standard - g) ** 2).sum(axis=0)) / (15 + (2 * spread + centre**2) / spread - 1)
    expected = (standard - g) / np.sqrt(d) * fit.sd + plain_fitted(fit, own)

    assert max_difference_sd(Combat().apply(extended, new).values, expected, dataset.values) < 1e-10


def test_a_new_pair_is_that_of_fitting_all_pairs(dataset) -> None:
    known, new = _parts(dataset)
    plan = replace(PLAN, reference_batch="B")
    pairwise = ALGORITHMS["pairwise"]
    model = pairwise.fit(known, plan)

    extended = load_model(save_model(add_batch(model, dataset, "C")))
    together = pairwise.harmonize(dataset, plan)

    assert np.array_equal(pairwise.apply(extended, dataset).values, together.values)
    assert extended.iterations == together.model.iterations
    with pytest.raises(
        HarmonizationRefused, match="0 scan.s. of the reference batch B are given; .* with 40"
    ):
        add_batch(model, new)


def test_z_scores_take_out_the_new_batch_alone(dataset) -> None:
    known, new = _parts(dataset)
    plan = Specification(eb=False, options={"unit_free": True})
    extended = add_batch(ALGORITHMS["z-score"].fit(known, plan), new)

    together = ALGORITHMS["z-score"].harmonize(dataset, plan).values
    assert (
        max_difference_sd(ALGORITHMS["z-score"].apply(extended, dataset).values, together, dataset.values)
        < 1e-12
    )


def test_a_scaled_batch_is_brought_to_the_frozen_profile(dataset) -> None:
    known, _ = _parts(dataset)
    scaling = ALGORITHMS["global-scaling"]
    model = scaling.fit(known, Specification(eb=False))
    own = known.select(np.flatnonzero(np.array(known.batches) == "A"))
    turned = replace(own.with_values(0.2 + 1.3 * own.values), batches=("C",) * 40)

    extended = add_batch(model, turned)

    expected = scaling.apply(model, own).values
    assert max_difference_sd(scaling.apply(extended, turned).values, expected, own.values) < 1e-11


@pytest.mark.parametrize("name", ALGORITHMS)
def test_capability_and_explanation_say_whether_a_batch_can_be_added(name) -> None:
    case = next(case for case in load_suite(name) if case.new is None)
    try:
        model = ALGORITHMS[name].fit(case.dataset, case.specification)
    except HarmonizationRefused:
        assert name == "neurocombat"
        return
    with pytest.raises(HarmonizationRefused) as refusal:
        add_batch(model, case.dataset)

    known = [finding.code for finding in refusal.value.findings if finding.severity == "stop"]
    possible = ALGORITHMS[name].capabilities.new_batch
    assert known == (["no_single_new_batch"] if possible else ["cannot_add_batch"])
    assert describe(name).new_batch == explain_new_batch(name)
    assert possible or explain_new_batch(name) in refusal.value.detail


@pytest.mark.parametrize(
    ("batch", "labels", "reason"),
    [
        (None, ("C", "D"), "they are of C, D."),
        ("A", ("A", "C"), "The model knows batch A already"),
        ("E", ("C", "D"), "No scan is of batch E; the scans are of C, D."),
        ("C", ("C", None), "Scans without a batch label"),
    ],
)
def test_a_batch_that_cannot_be_told_is_refused_with_the_reason(dataset, batch, labels, reason) -> None:
    known, new = _parts(dataset)
    scans = replace(new, batches=labels * 15)

    with pytest.raises(HarmonizationRefused, match=reason):
        add_batch(Combat().fit(known, PLAN), scans, batch)


def test_faulty_additions_are_refused(dataset) -> None:
    known, new = _parts(dataset)
    model = Combat().fit(known, PLAN)
    holed, short = new.values.copy(), new.values.copy()
    holed[0, 0], short[:26, 2] = np.nan, np.nan
    old = replace(new, covariates={**new.covariates, "age": tuple(age + 60 for age in new.covariates["age"])})
    for scans, message in (
        (known, "one batch that the model does not know"),
        (new.select(range(3)), "has 3 scans; the plan asks for 5"),
        (new.select(range(8)), "has 8 scans; below 10 the plan takes its scale for unknown"),
        (new.with_values(np.full_like(new.values, 2.0)), "one value in all scans"),
        (new.with_values(short), "region_02 has fewer than 5 observed scans in batch C"),
        (new.with_values(np.where(np.isnan(holed), np.inf, holed)), "Infinite"),
        (old, "of age in batch C lies in the range"),
    ):
        with pytest.raises(HarmonizationRefused, match=message):
            add_batch(model, scans)
    with pytest.raises(HarmonizationRefused, match="missing"):
        add_batch(Combat().fit(known, replace(PLAN, missing_values="refuse")), new.with_values(holed))
    with pytest.raises(HarmonizationRefused, match="No scan is of batch D; the scans are of A, B, C"):
        add_batch(model, dataset, "D")


def test_small_batches_are_added_with_a_warning(dataset) -> None:
    known, new = _parts(dataset)

    extended = add_batch(Combat().fit(known, PLAN), new.select(range(12)))

    codes = [finding["code"] for finding in extended.facts["added_batches"][0]["findings"]]
    assert "small_batch" in codes


@pytest.mark.parametrize("factor", [1e200, 1e-200])
@pytest.mark.parametrize("name", ["combat", "combat-robust", "z-score", "global-scaling"])
def test_a_batch_whose_spread_cannot_be_computed_is_refused(dataset, name, factor) -> None:
    known, new = _parts(dataset)
    model = ALGORITHMS[name].fit(known, Specification(eb=False))

    with pytest.raises(HarmonizationRefused) as refusal:
        add_batch(model, new.with_values(new.values * factor))

    assert refusal.value.findings[-1].code == "spread_not_computable"
