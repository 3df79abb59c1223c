"""The cross-check over every method and situation, against results that are wrong, and on large tables."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harmonization_app.algorithms import location_scale, verification
from harmonization_app.algorithms.add_batch import add_batch
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused, Result
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.empirical_bayes import Prior
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    FeaturePool,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.verification.crosscheck import (
    cross_check,
    cross_check_applied,
    max_difference_sd,
)
from harmonization_app.algorithms.verification.suite import load_suite, make_input
from harmonization_app.offline.computation import largest_difference_sd
from hub.core.errors import InvalidInput

Case = tuple[Dataset, Specification]
PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


def _base(name: str) -> Case:
    own = next(
        case for case in load_suite(name) if case.new is None and not np.isnan(case.dataset.values).any()
    )
    plan = own.specification
    return own.dataset, replace(plan, missing_values="refuse") if name == "neurocombat" else plan


def _values(case: Case, change: Callable[[np.ndarray, np.ndarray], None]) -> Case:
    dataset, plan = case
    values = dataset.values.copy()
    change(values, np.array(dataset.batches))
    return dataset.with_values(values), plan


def _pools(case: Case) -> Case:
    dataset, plan = case
    names = dataset.features
    half = len(names) // 2
    pools = (FeaturePool("late", names[: half - 1 : -1]), FeaturePool("early", names[:half]))
    return dataset, replace(plan, pools=pools)


def _holed(case: Case) -> Case:
    def change(values, batches) -> None:
        holes = np.random.default_rng(4).random(values.shape) < 0.05
        values[holes & (np.arange(values.shape[1]) % 3 == 2)] = np.nan

    return _values(case, change)


def _lacking_batch(case: Case) -> Case:
    def change(values, batches) -> None:
        values[batches == batches[0], -1] = np.nan
        values[np.random.default_rng(4).random(values.shape) < 0.03] = np.nan

    dataset, plan = _values(case, change)
    return dataset, replace(plan, unusable_features="pass_through")


def _undetermined(case: Case) -> Case:
    """Observe the last feature in one level of the first categorical covariate only."""
    dataset, plan = case
    named = [item.name for item in plan.covariates if item.kind == "categorical"]
    if not named:
        return _lacking_batch(case)
    column = np.array([str(value) for value in dataset.covariates[named[0]]])

    def change(values, batches) -> None:
        values[column == column[0], -1] = np.nan

    dataset, plan = _values(case, change)
    return dataset, replace(plan, unusable_features="pass_through")


def _constant(case: Case) -> Case:
    def change(values, batches) -> None:
        values[:, -1] = 2.3

    return _values(case, change)


def _constant_in_batch(case: Case) -> Case:
    def change(values, batches) -> None:
        values[batches == batches[0], -1] = 2.3

    return _values(case, change)


def _reference(case: Case) -> Case:
    dataset, plan = case
    return dataset, replace(plan, reference_batch=sorted(set(dataset.batches))[-1])


def _merged(case: Case) -> Case:
    dataset, plan = case
    first, second = sorted(set(dataset.batches) - {plan.reference_batch})[:2]
    return dataset, replace(plan, merge_batches={first: second})


def _features(case: Case) -> Case:
    """Leave out a feature that no option names, and turn the others round."""
    dataset, plan = case
    kept = tuple(name for name in dataset.features if name not in str(plan.options))
    if len(kept) == 0 or plan.time == "scanned":
        kept = ()
    named = tuple(name for name in dataset.features if name not in kept)
    return dataset, replace(plan, features=(*kept[:0:-1], *named))


def _labels(case: Case) -> Case:
    """Write the batches as numbers and categories with blanks."""
    dataset, plan = case
    if plan.options.get("measurements") or plan.reference_batch:
        return case
    codes = {label: f" {index} " for index, label in enumerate(sorted(set(dataset.batches)))}
    return replace(dataset, batches=tuple(codes[label] for label in dataset.batches)), plan


def _more_columns(case: Case) -> Case:
    dataset, plan = case
    extra = {
        "scan_id": tuple(f"x{i}" for i in range(len(dataset.rows))),
        "years": (None,) * len(dataset.rows),
    }
    return replace(dataset, covariates={**extra, **dataset.covariates}), plan


def _all_at_once(case: Case) -> Case:
    return _reference(_pools(_constant_in_batch(_lacking_batch(case))))


SITUATIONS: dict[str, Callable[[Case], Case]] = {
    "as planned": lambda case: case,
    "feature pools": _pools,
    "missing values": _holed,
    "features that lack a batch": _lacking_batch,
    "features that do not determine a covariate": _undetermined,
    "constant feature": _constant,
    "constant in a batch": _constant_in_batch,
    "mean only": lambda case: (case[0], replace(case[1], mean_only=True)),
    "without shrinkage": lambda case: (case[0], replace(case[1], eb=False)),
    "mean only without shrinkage": lambda case: (case[0], replace(case[1], eb=False, mean_only=True)),
    "empirical priors": lambda case: (case[0], replace(case[1], parametric=False)),
    "empirical priors in pools": lambda case: _pools((case[0], replace(case[1], parametric=False))),
    "reference batch": _reference,
    "merged batches": _merged,
    "some features, turned round": _features,
    "labels to be read": _labels,
    "columns not asked for": _more_columns,
    "pools, lacking, constant, reference": _all_at_once,
}

# What a method refuses for what it would do wrong, beyond its schema and capabilities.
REFUSED = {("neurocombat", "constant in a batch")}


def _accepted(name: str, case: Case) -> bool:
    """Return whether the method says, by schema and capabilities, that it takes this case."""
    algorithm = ALGORITHMS[name]
    if np.isnan(case[0].values).any() and not algorithm.capabilities.missing_values:
        return False
    return not check_parameters(algorithm.parameters_schema(), case[1])


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_case_a_method_takes_is_computed_a_second_time(name, situation) -> None:
    algorithm, (dataset, plan) = ALGORITHMS[name], SITUATIONS[situation](_base(name))
    if (name, situation) in REFUSED or not _accepted(name, (dataset, plan)):
        with pytest.raises(HarmonizationRefused):
            algorithm.harmonize(dataset, plan)
        return

    result = algorithm.harmonize(dataset, plan)
    check = cross_check(dataset, result, algorithm.tolerance_sd)

    assert check.passed, check
    assert check.iterations_equal is not False
    assert check.features_checked == check.features == len(result.model.features)
    assert check.scope == ""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_most_situations_are_taken(name) -> None:
    taken = [situation for situation, make in SITUATIONS.items() if _accepted(name, make(_base(name)))]

    assert len(taken) >= 6, taken


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_value_moved_is_found(name) -> None:
    algorithm, (dataset, plan) = ALGORITHMS[name], _base(name)
    result = algorithm.harmonize(dataset, plan)
    step = max(1e-6, 5 * algorithm.tolerance_sd)
    result.values[3, 1] += step * dataset.values[:, 1].std()

    check = cross_check(dataset, result, algorithm.tolerance_sd)

    assert not check.passed
    assert check.max_difference_sd == pytest.approx(step, rel=0.5)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if _accepted(name, _pools(_base(name)))])
def test_priors_shared_across_pools_are_found(name) -> None:
    dataset, plan = _base(name)
    _, pooled = _pools((dataset, plan))
    result = ALGORITHMS[name].harmonize(dataset, plan)
    if np.allclose(result.values, ALGORITHMS[name].harmonize(dataset, pooled).values, atol=1e-9):
        assert not plan.eb
        return

    wrong = replace(result, model=replace(result.model, specification=pooled))

    assert not cross_check(dataset, wrong, ALGORITHMS[name].tolerance_sd).passed


# Methods that correct scans and not batches.
WITHOUT_BATCHES = {"control-features", "sva"}


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in WITHOUT_BATCHES])
def test_scans_of_the_wrong_batch_are_found(name) -> None:
    dataset, plan = _base(name)
    labels, columns = list(dataset.batches), dict(dataset.covariates)
    other = next(i for i, label in enumerate(labels) if label != labels[0])
    labels[0], labels[other] = labels[other], labels[0]
    for variable in plan.batch_variables:
        column = list(columns[variable])
        other = next(i for i, value in enumerate(column) if value != column[0])
        column[0], column[other] = column[other], column[0]
        columns[variable] = tuple(column)
    swapped = replace(dataset, batches=tuple(labels), covariates=columns)

    result = ALGORITHMS[name].harmonize(swapped, plan)

    assert not cross_check(dataset, result, ALGORITHMS[name].tolerance_sd).passed


def test_steps_that_differ_are_found() -> None:
    dataset, plan = _base("combat")
    result = Combat().harmonize(dataset, plan)
    steps = {
        pool: {batch: n + 1 for batch, n in counts.items()} for pool, counts in result.iterations.items()
    }

    check = cross_check(dataset, replace(result, model=replace(result.model, iterations=steps)))

    assert (check.iterations_equal, check.passed) == (False, False)
    assert check.max_difference_sd < 1e-9


def test_a_prior_with_another_denominator_is_found(monkeypatch) -> None:
    dataset, plan = _base("combat")
    original = location_scale.estimate_prior

    def biased(shift, scale, mean_only) -> Prior:
        right = original(shift, scale, mean_only)
        return replace(right, variance=float(np.var(shift)))

    monkeypatch.setattr(location_scale, "estimate_prior", biased)
    result = Combat().harmonize(dataset, plan)

    assert not cross_check(dataset, result).passed


def test_values_of_another_shape_or_not_finite_are_found() -> None:
    dataset, plan = _base("combat")
    result = Combat().harmonize(dataset, plan)
    for wrong in (np.nan, np.inf):
        values = result.values.copy()
        values[2, 3] = wrong
        assert cross_check(dataset, replace(result, values=values)).max_difference_sd == np.inf
    assert not cross_check(dataset, replace(result, values=result.values[:, :-1])).passed


def test_values_whose_spread_overflows_are_not_compared_as_equal() -> None:
    raw = np.array([[1e200], [-1e200], [3e200]])

    assert max_difference_sd(raw * 1.5, raw, raw) == np.inf
    assert largest_difference_sd(raw, raw * 1.5) is None


def _wide(features: int, scans: int = 90) -> Dataset:
    small = make_input({"A": scans // 3, "B": scans // 3, "C": scans // 3}, seed=8)
    random = np.random.default_rng(3)
    shift = random.normal(0, 0.1, (3, features))[
        "ABC".index("A") + np.array(["ABC".index(b) for b in small.batches])
    ]
    values = random.normal(2.5, 0.2, (scans, features)) + shift
    return Dataset(
        values, tuple(f"f{i}" for i in range(features)), small.rows, small.batches, small.covariates
    )


@pytest.mark.parametrize(
    "change",
    [{}, {"eb": False, "batch_size": replace(PLAN.batch_size, without_eb_stop_below=5)}, {"mean_only": True},
     {"reference_batch": "B"}],
    ids=str,
)  # fmt: skip
def test_large_tables_are_checked_by_blocks_as_small_ones_feature_by_feature(change, monkeypatch) -> None:
    from harmonization_app.algorithms.verification import plain_blocks, pooled

    dataset = _wide(70)
    values = dataset.values.copy()
    values[np.random.default_rng(1).random(values.shape) < 0.01] = np.nan
    values[:, 5], values[:30, 6] = 1.7, np.where(np.arange(30) < 27, np.nan, values[:30, 6])
    half = dataset.features[:35]
    pools = (FeaturePool("one", half[::-1]), FeaturePool("two", dataset.features[35:]))
    dataset = dataset.with_values(values)
    plan = replace(PLAN, pools=pools, unusable_features="pass_through", **change)
    result = Combat().harmonize(dataset, plan)
    small = cross_check(dataset, result)

    monkeypatch.setattr(pooled, "FEATURE_BY_FEATURE_CELLS", 0)
    monkeypatch.setattr(plain_blocks, "BLOCK_CELLS", 1000)
    large = cross_check(dataset, result)

    assert small.passed and large.passed
    assert (small.iterations_equal, large.iterations_equal) == (
        (None, None) if change.get("eb") is False else (True, True)
    )
    assert large.features_checked == 70
    result.values[4, 60] += 1e-6 * np.nanstd(values[:, 60])
    assert not cross_check(dataset, result).passed


def test_empirical_priors_of_many_features_are_checked_for_a_stated_sample(monkeypatch) -> None:
    from harmonization_app.algorithms.verification import plain_blocks, pooled

    dataset = _wide(300)
    plan = replace(PLAN, parametric=False)
    result = Combat().harmonize(dataset, plan)
    monkeypatch.setattr(pooled, "FEATURE_BY_FEATURE_CELLS", 0)
    monkeypatch.setattr(plain_blocks, "NONPARAMETRIC_CELLS", 1000)
    monkeypatch.setattr(plain_blocks, "NONPARAMETRIC_SAMPLE", 40)

    check = cross_check(dataset, result)
    again = cross_check(dataset, result)

    assert check.passed and check == again
    assert check.features_checked == 40
    assert check.scope.startswith(f"40 of 300 features, drawn with seed {plan.seed}")
    everywhere: Result = replace(result, values=result.values + 1e-7)
    assert not cross_check(dataset, everywhere).passed


def test_searches_of_large_mixed_models_are_repeated_for_a_stated_sample(monkeypatch) -> None:
    from harmonization_app.algorithms.verification.methods import longcombat

    for options in ({}, {"random_slope": True}):
        dataset, plan = _base("longcombat")
        plan = replace(plan, options=options)
        result = ALGORITHMS["longcombat"].harmonize(dataset, plan)
        monkeypatch.setattr(longcombat, "SEARCHED_CELLS", dataset.values.size // 4)

        check = cross_check(dataset, result, 2e-6)

        assert check.passed
        assert check.features_checked == 8
        assert check.scope.startswith(
            "The search for the random effects' variance was repeated for 2 of 8 features"
        )
        result.values[2, 1] += 1e-4 * dataset.values[:, 1].std()
        assert not cross_check(dataset, result, 2e-6).passed


def test_a_wrong_search_is_found_among_the_sample(monkeypatch) -> None:
    from harmonization_app.algorithms import mixed_model
    from harmonization_app.algorithms.verification.methods import longcombat

    dataset, plan = _base("longcombat")
    search = mixed_model._search_intercepts
    monkeypatch.setattr(mixed_model, "_search_intercepts", lambda products: 1.05 * search(products))
    result = ALGORITHMS["longcombat"].harmonize(dataset, plan)
    monkeypatch.setattr(longcombat, "SEARCHED_CELLS", dataset.values.size // 4)

    assert not cross_check(dataset, result, 2e-6).passed


def test_what_cannot_be_computed_again_gives_its_reason(monkeypatch) -> None:
    from harmonization_app.algorithms.verification.methods import longcombat

    dataset, plan = _base("longcombat")
    result = ALGORITHMS["longcombat"].harmonize(dataset, plan)
    monkeypatch.setattr(longcombat, "LARGEST_CELLS", 10)

    with pytest.raises(InvalidInput, match="a mixed model of each feature takes too long above 10 cells"):
        cross_check(dataset, result, 2e-6)


def _scans_to_correct(name: str):
    """Return the fitted scans, other scans and the plan of a method's packaged case, or a part of the fitted ones."""
    own = next((case for case in load_suite(name) if case.new is not None), None)
    if own is not None:
        return own.dataset, own.new, own.specification
    dataset, plan = _base(name)
    return dataset, dataset.select(np.arange(0, len(dataset.rows), 2)), plan


@pytest.mark.parametrize("name", [name for name, item in ALGORITHMS.items() if item.capabilities.train_apply])
def test_scans_corrected_by_a_frozen_model_are_computed_a_second_time(name) -> None:
    algorithm, (fitted, scans, plan) = ALGORITHMS[name], _scans_to_correct(name)
    model = load_model(save_model(algorithm.fit(fitted, plan)))
    result = algorithm.apply(model, scans)

    check = cross_check_applied(fitted, scans, result, algorithm.tolerance_sd)

    assert check.passed, check
    result.values[1, 1] += max(1e-6, 5 * algorithm.tolerance_sd) * fitted.values[:, 1].std()
    assert not cross_check_applied(fitted, scans, result, algorithm.tolerance_sd).passed


@pytest.mark.parametrize("name", ["combat", "dcombat", "pairwise"])
@pytest.mark.parametrize(
    "change", [{}, {"mean_only": True}, {"parametric": False}, {"reference_batch": "B"}], ids=str
)
def test_an_added_batch_is_computed_a_second_time(name, change) -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 30}, seed=3)
    levels = (Covariate("age", "continuous"), Covariate("sex", "categorical", "F", ("F", "M")))
    change = {**change, **({"reference_batch": "A"} if name == "pairwise" else {})}
    plan = replace(PLAN, covariates=levels, **change)
    labels = np.array(dataset.batches)
    known, new = dataset.select(np.flatnonzero(labels != "C")), dataset.select(np.flatnonzero(labels == "C"))
    model = add_batch(ALGORITHMS[name].fit(known, plan), dataset, "C")
    result = ALGORITHMS[name].apply(model, dataset)

    check = cross_check_applied(known, dataset, result, added=[new])

    assert check.passed, check
    assert check.iterations_equal
    result.values[labels == "C", 3] += 1e-6 * dataset.values[:, 3].std()
    assert not cross_check_applied(known, dataset, result, added=[new]).passed
    with pytest.raises(InvalidInput, match="scans of the batches added"):
        cross_check_applied(known, dataset, result)


def test_an_added_batch_without_a_second_implementation_says_so() -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 30}, seed=3)
    labels = np.array(dataset.batches)
    known, new = dataset.select(np.flatnonzero(labels != "C")), dataset.select(np.flatnonzero(labels == "C"))
    algorithm = ALGORITHMS["z-score"]
    result = algorithm.apply(add_batch(algorithm.fit(known, Specification(eb=False)), new), dataset)

    with pytest.raises(
        InvalidInput, match="a batch added to a model of z-score has no second implementation"
    ):
        cross_check_applied(known, dataset, result, added=[new])


# What travels between the fast and the plain code: datasets, plans, fitted models.
SHARED = {"base", "specification", "model"}
COMPARING = {"crosscheck", "reference", "suite", "__init__"}


def test_plain_code_imports_nothing_of_the_fast_code() -> None:
    folder = Path(verification.__file__).parent
    package = "harmonization_app.algorithms."
    at_fault = []
    for path in [*folder.glob("*.py"), *folder.glob("methods/*.py")]:
        if path.parent == folder and path.stem in COMPARING:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("harmonization_app."):
                name = str(node.module).removeprefix(package)
                if name not in SHARED and not name.startswith("verification"):
                    at_fault.append(f"{path.stem}: {name}")

    assert at_fault == []


def test_a_batch_that_is_fitted_exactly_keeps_its_scale() -> None:
    random = np.random.default_rng(5)
    values = random.normal(2.5, 0.2, (14, 6))
    dataset = Dataset(
        values,
        tuple(f"f{i}" for i in range(6)),
        tuple(f"r{i}" for i in range(14)),
        ("A", "A", *"B" * 12),
        {"sex": ("F", "M", *"F" * 12)},
    )
    plan = Specification(
        covariates=(Covariate("sex", "categorical"),),
        eb=False,
        batch_size=BatchSizePolicy(2, 2, 2, 2, 1),
        overlap=OverlapPolicy(100.0, 0.0),
    )

    result = Combat().harmonize(dataset, plan)

    assert np.diff(result.values[:2], axis=0) == pytest.approx(np.diff(values[:2], axis=0), rel=1e-9)
    assert cross_check(dataset, result).passed
