"""Nested and pairwise ComBat: planted effects, order, refusals, and what a further batch leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.nested import Nested
from harmonization_app.algorithms.nested_search import NestedSearch
from harmonization_app.algorithms.pairwise import Pairwise
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification import cross_check, max_difference_sd
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics.method_notes import flags_of

AGE_AND_SEX = (Covariate("age", "continuous"), Covariate("sex", "categorical"))
PLAN = Specification(covariates=AGE_AND_SEX, batch_variables=("maker", "kernel"))
PAIRS = Specification(covariates=AGE_AND_SEX, reference_batch="B")


@pytest.fixture
def crossed() -> Dataset:
    dataset = make_input({"A": 60, "B": 60}, seed=3)
    random = np.random.default_rng(2)
    maker, kernel = random.integers(0, 2, 120), random.integers(0, 3, 120)
    values = dataset.values + 0.4 * maker[:, None] - 0.3 * (kernel == 2)[:, None]
    columns = {"maker": tuple("XY"[i] for i in maker), "kernel": tuple("pqr"[i] for i in kernel)}
    return replace(dataset, values=values, covariates={**dataset.covariates, **columns})


@pytest.fixture
def sites() -> Dataset:
    return make_input({"A": 30, "B": 40, "C": 35}, seed=3)


def test_both_planted_variables_are_corrected(crossed) -> None:
    result = Nested().harmonize(crossed, PLAN)

    for name, levels in (("maker", "XY"), ("kernel", "pqr")):
        labels = np.array(crossed.covariates[name])
        before = np.ptp([crossed.values[labels == level].mean() for level in levels])
        after = np.ptp([result.values[labels == level].mean() for level in levels])
        assert before > 0.2
        assert after < 0.06
    assert result.facts["order"] == ["maker", "kernel"]
    assert set(result.iterations) == {"maker: all", "kernel: all"}


def test_one_batch_variable_is_combat(crossed) -> None:
    nested = Nested().harmonize(crossed, replace(PLAN, batch_variables=("maker",))).values

    plain = replace(crossed, batches=crossed.covariates["maker"])
    assert np.array_equal(nested, Combat().harmonize(plain, Specification(covariates=AGE_AND_SEX)).values)


@pytest.mark.parametrize("eb", [True, False])
@pytest.mark.parametrize("order", [("maker", "kernel"), ("kernel", "maker")])
def test_one_value_in_a_level_keeps_its_scale_whatever_the_order(crossed, order, eb) -> None:
    failed = np.array(crossed.covariates["kernel"]) == "r"
    values = crossed.values.copy()
    values[:, 3] -= 0.4 * (np.array(crossed.covariates["maker"]) == "Y")
    values[failed, 3] = 2.3
    plan = replace(PLAN, batch_variables=order, eb=eb)
    dataset = crossed.with_values(values)

    result = Nested().harmonize(dataset, plan)

    scale = result.model.arrays[f"part{order.index('kernel')}_delta_star"]
    assert scale[2, 3] == 1.0
    assert scale[2, 4] != 1.0
    assert result.flags["constant_in_batch"] == ("region_03",)
    # What the maker's step made of one value stays small; scaled, it would pass for the spread of measurements.
    assert result.values[failed, 3].std() < 0.3 * result.values[~failed, 3].std()
    assert cross_check(dataset, result, Nested.tolerance_sd).passed
    assert np.array_equal(Nested().apply(result.model, dataset).values, result.values)


@pytest.mark.parametrize("order", [("maker", "kernel"), ("kernel", "maker")])
@pytest.mark.parametrize("method", [Nested(), NestedSearch()], ids=["nested", "nested-search"])
def test_feature_that_a_batch_variable_determines_is_refused(crossed, method, order) -> None:
    values = crossed.values.copy()
    values[:, 3] = np.array([2.1, 2.2, 2.4])[["pqr".index(level) for level in crossed.covariates["kernel"]]]

    with pytest.raises(HarmonizationRefused, match="leave no residual variance.*region_03"):
        method.fit(crossed.with_values(values), replace(PLAN, batch_variables=order))


def with_holes(crossed: Dataset) -> Dataset:
    """Feature 3 lacks kernel r, feature 4 maker Y, feature 5 a level of both."""
    kernel, maker = (np.array(crossed.covariates[name]) for name in ("kernel", "maker"))
    values = crossed.values.copy()
    values[kernel == "r", 3] = values[maker == "Y", 4] = np.nan
    values[(kernel == "r") | (maker == "Y"), 5] = np.nan
    return crossed.with_values(values)


@pytest.mark.parametrize("order", [("maker", "kernel"), ("kernel", "maker")])
@pytest.mark.parametrize("method", [Nested(), NestedSearch()], ids=["nested", "nested-search"])
def test_flag_names_the_variable_that_a_feature_is_left_uncorrected_for(crossed, method, order) -> None:
    dataset = with_holes(crossed)

    result = method.harmonize(dataset, replace(PLAN, batch_variables=order, unusable_features="pass_through"))

    assert dict(result.flags) == {
        "unusable": ("region_05",),
        "unusable: kernel": ("region_03",),
        "unusable: maker": ("region_04",),
    }
    seen = ~np.isnan(dataset.values)
    changed = [np.any((result.values != dataset.values)[seen[:, f], f]) for f in (3, 4, 5)]
    assert changed == [True, True, False]
    assert result.model.corrected[[3, 4, 5]].tolist() == [True, True, False]
    for own, other, feature in (("kernel", "maker", 3), ("maker", "kernel", 4)):
        step = result.facts["order"].index(other)
        kept = result.model.facts["order"].index(own)
        assert (result.model.arrays[f"part{kept}_delta_star"][:, feature] == 1).all()
        assert (result.model.arrays[f"part{step}_delta_star"][:, feature] != 1).all()
    stored = load_model(save_model(result.model))
    assert dict(stored.flags) == dict(result.flags)


def test_words_say_which_variable_a_feature_is_left_uncorrected_for(crossed) -> None:
    plan = replace(PLAN, unusable_features="pass_through")

    result = Nested().harmonize(with_holes(crossed), plan)

    words = {code: item["meaning"] for code, item in flags_of(result).items()}
    assert words["unusable: kernel"].startswith("Not corrected for kernel: ")
    assert "Corrected for every other batch variable" in words["unusable: maker"]
    assert words["unusable"].endswith("passed through unchanged.")
    told = {item.columns: item.message for item in Nested().validate(with_holes(crossed), plan)}
    of_kernel = told["region_03", "region_05"]
    assert of_kernel.startswith("Batch variable kernel: These features have fewer than ")
    assert of_kernel.endswith(
        "That is so for kernel alone: they are corrected for a batch variable without such a finding."
    )


def test_one_batch_variable_flags_what_it_leaves_as_combat_does(crossed) -> None:
    plan = replace(PLAN, batch_variables=("kernel",), unusable_features="pass_through")

    assert dict(Nested().harmonize(with_holes(crossed), plan).flags) == {
        "unusable": ("region_03", "region_05")
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (("maker", "coil"), "lacks the batch variable.* coil"),
        (("sex",), "corrected for and preserved at once"),
        ((), "does not suit this method"),
    ],
)
def test_faulty_batch_variables_are_refused(crossed, variables, message) -> None:
    with pytest.raises(HarmonizationRefused, match=message):
        Nested().fit(crossed, replace(PLAN, batch_variables=variables))


def test_gate_names_the_batch_variable_at_fault(crossed) -> None:
    kernel = ("z", "z", *crossed.covariates["kernel"][2:])
    small = replace(crossed, covariates={**crossed.covariates, "kernel": kernel})

    with pytest.raises(HarmonizationRefused, match=r"Batch variable kernel: .*fewer than 5 scans.*z \(2\)"):
        Nested().fit(small, PLAN)


def test_unknown_level_of_a_batch_variable_is_refused(crossed) -> None:
    model = Nested().fit(crossed, PLAN)
    one = crossed.select([0])

    with pytest.raises(HarmonizationRefused, match="no batch Z"):
        Nested().apply(model, replace(one, covariates={**one.covariates, "maker": ("Z",)}))


def test_pairs_are_combat_with_a_reference(sites) -> None:
    result = Pairwise().harmonize(sites, PAIRS)

    labels = np.array(sites.batches)
    for moving in "AC":
        pair = sites.select(np.flatnonzero((labels == moving) | (labels == "B")))
        expected = Combat().harmonize(pair, PAIRS)
        own = np.array(pair.batches) == moving
        assert max_difference_sd(result.values[labels == moving], expected.values[own], sites.values) < 1e-12
    assert np.array_equal(result.values[labels == "B"], sites.values[labels == "B"])


def test_a_further_batch_leaves_the_others_alone(sites) -> None:
    labels = np.array(sites.batches)
    without = sites.select(np.flatnonzero(labels != "C"))

    before = Pairwise().harmonize(without, PAIRS).values
    after = Pairwise().harmonize(sites, PAIRS).values

    assert np.array_equal(before, after[labels != "C"])


def test_pairwise_needs_a_reference_batch_that_exists(sites) -> None:
    with pytest.raises(HarmonizationRefused, match="reference_batch"):
        Pairwise().fit(sites, replace(PAIRS, reference_batch=None))
    with pytest.raises(HarmonizationRefused, match="reference batch Z is not in the data"):
        Pairwise().fit(sites, replace(PAIRS, reference_batch="Z"))


def test_gate_names_the_pair_at_fault(sites) -> None:
    sex = tuple(
        "F" if batch != "A" else s for batch, s in zip(sites.batches, sites.covariates["sex"], strict=True)
    )
    lopsided = replace(sites, covariates={**sites.covariates, "sex": sex})

    with pytest.raises(HarmonizationRefused, match="Pair C: sex has one level"):
        Pairwise().fit(lopsided, PAIRS)


def test_reference_with_one_scale_for_all_features_has_no_prior_to_fail(sites) -> None:
    pair = sites.select(np.flatnonzero(np.array(sites.batches) != "C"))

    model = Combat().fit(pair, PAIRS)

    reference = model.batches.index("B")
    assert np.isnan(model.arrays["priors"][0, reference]).all()
    assert np.isfinite(model.arrays["priors"][0, 1 - reference]).all()
