"""The order search of nested ComBat: the published orders, the table of tries, its test, honest refusals."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import anderson_ksamp

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.k_sample import anderson_darling
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.nested import Nested
from harmonization_app.algorithms.nested_search import NestedSearch
from harmonization_app.algorithms.verification.reference import SEARCHED_ORDERS, reference_cases
from harmonization_app.algorithms.verification.suite import load_suite


@pytest.fixture
def case():
    return next(case for case in load_suite("nested-search") if case.name == "every_order")


def _with_column(dataset: Dataset, name: str, values: tuple) -> Dataset:
    return replace(dataset, covariates={**dataset.covariates, name: values})


@pytest.mark.reference
def test_published_orders_are_found(reference_data) -> None:
    folder = reference_data / "harmonization"

    for case in reference_cases(folder, "nested-search"):
        facts = json.loads((folder / "cases" / case.name / "case.json").read_text("utf-8"))
        published = facts.get("chosen_order") or list(SEARCHED_ORDERS[case.name])
        assert NestedSearch().fit(case.dataset, case.specification).facts["order"] == published


def test_result_is_nested_combat_in_the_order_found(case) -> None:
    result = NestedSearch().harmonize(case.dataset, case.specification)

    order = tuple(result.facts["order"])
    assert order == ("contrast", "kernel", "maker")
    plan = replace(case.specification, batch_variables=order)
    assert np.array_equal(result.values, Nested().harmonize(case.dataset, plan).values)


def test_every_order_is_tried_once_and_told(case) -> None:
    tried = NestedSearch().fit(case.dataset, case.specification).facts["tried"]

    assert len({tuple(trial["order"]) for trial in tried}) == 6
    assert [trial["total"] for trial in tried] == [2, 6, 4, 1, 10, 0]
    assert all(trial["total"] == sum(trial["significant"].values()) for trial in tried)


def test_counts_are_those_of_the_published_test(case) -> None:
    trial = NestedSearch().fit(case.dataset, case.specification).facts["tried"][4]

    plan = replace(case.specification, batch_variables=tuple(trial["order"]))
    values = Nested().harmonize(case.dataset, plan).values
    for name, count in trial["significant"].items():
        labels = np.array([str(value) for value in case.dataset.covariates[name]])
        assert count == sum(_scipy(column, labels) < 0.05 for column in values.T)


def test_first_of_equal_orders_is_taken(case) -> None:
    dataset = case.dataset.with_values(np.random.default_rng(3).normal(size=case.dataset.values.shape))
    plan = replace(case.specification, batch_variables=("kernel", "maker"))

    facts = NestedSearch().fit(dataset, plan).facts

    assert [trial["total"] for trial in facts["tried"]] == [0, 0]
    assert facts["order"] == ["kernel", "maker"]


def test_steps_are_told(case) -> None:
    plan = replace(case.specification, options={"search": "stepwise", "test": "kolmogorov_smirnov"})

    facts = NestedSearch().fit(case.dataset, plan).facts

    assert facts["order"] == ["maker", "contrast", "kernel"]
    assert [len(trial["order"]) for trial in facts["tried"]] == [1, 1, 1, 2, 2, 3]


def test_stored_model_keeps_the_plan_and_the_order(case) -> None:
    model = load_model(save_model(NestedSearch().fit(case.dataset, case.specification)))

    assert model.specification == case.specification
    assert model.facts["order"] == ["contrast", "kernel", "maker"]
    assert NestedSearch.exploratory


def test_missing_cells_are_left_out_of_the_test(case) -> None:
    values = case.dataset.values.copy()
    values[[0, 7, 9], 4] = np.nan

    result = NestedSearch().harmonize(case.dataset.with_values(values), case.specification)

    assert np.array_equal(np.isnan(result.values), np.isnan(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_variables": ("maker",)}, "batch_variables"),
        ({"batch_variables": ("maker", "coil")}, "lacks the batch variable.* coil"),
        ({"batch_variables": tuple("abcdef")}, "batch_variables"),
        ({"options": {"search": "greedy"}}, "search"),
    ],
)
def test_faulty_plans_are_refused(case, changes, message) -> None:
    with pytest.raises(HarmonizationRefused, match=message):
        NestedSearch().fit(case.dataset, replace(case.specification, **changes))


def test_kolmogorov_smirnov_needs_two_levels(case) -> None:
    three = _with_column(case.dataset, "kernel", tuple(i % 3 for i in range(len(case.dataset.rows))))
    plan = replace(case.specification, options={"test": "kolmogorov_smirnov"})

    with pytest.raises(HarmonizationRefused, match="kernel has more"):
        NestedSearch().fit(three, plan)


@pytest.mark.parametrize(("groups", "scans", "decimals"), [(2, 50, 8), (3, 40, 1), (5, 200, 0), (4, 23, 8)])
def test_anderson_darling_is_that_of_scipy(groups, scans, decimals) -> None:
    random = np.random.default_rng(groups)
    codes = random.integers(0, groups, scans)
    values = (random.normal(size=(scans, 30)) + 0.3 * codes[:, None]).round(decimals)

    ours = anderson_darling(values, codes)

    np.testing.assert_allclose(ours, [_scipy(column, codes) for column in values.T], rtol=0, atol=1e-10)


def test_anderson_darling_leaves_out_what_it_cannot_test() -> None:
    random = np.random.default_rng(5)
    values, codes = random.normal(size=(40, 3)), np.arange(40) % 2
    values[:, 1] = 7.0
    values[3:6, 2] = np.nan
    seen = ~np.isnan(values[:, 2])

    result = anderson_darling(values, codes)

    assert result[1] == 1.0
    assert result[2] == pytest.approx(_scipy(values[seen, 2], codes[seen]), abs=1e-10)
    assert anderson_darling(values[:3], codes[:3]).tolist() == [1.0, 1.0, 1.0]
    assert anderson_darling(values, np.zeros(40, dtype=int)).tolist() == [1.0, 1.0, 1.0]


def _scipy(column: np.ndarray, labels: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(
            anderson_ksamp([column[labels == one] for one in np.unique(labels)], variant="midrank").pvalue
        )
