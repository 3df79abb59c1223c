"""What the ComBat family assumes: planted violations are named, tables without one are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.design import build_design
from harmonization_app.algorithms.specification import Covariate, OverlapPolicy, Specification
from harmonization_app.diagnostics.gate import check
from harmonization_app.diagnostics.gate_assumptions import check_assumptions

PLAN = Specification(covariates=(Covariate("age", "continuous"),), overlap=OverlapPolicy(10.0, 0.0))
SITES, PER_SITE, FEATURES = 5, 60, 60


def _table(seed: int = 1) -> Dataset:
    random = np.random.default_rng(seed)
    sites = np.repeat(np.arange(SITES), PER_SITE)
    age = random.uniform(40, 80, len(sites))
    values = (
        random.normal(0, 1, (len(sites), FEATURES))
        * np.sqrt(1 / random.gamma(20, 1 / 20, (SITES, FEATURES)))[sites]
    )
    values += random.normal(0, 0.4, (SITES, FEATURES))[sites] - 0.02 * age[:, None]
    return Dataset(
        values,
        tuple(f"f{i}" for i in range(FEATURES)),
        tuple(f"r{i}" for i in range(len(sites))),
        tuple("abcde"[i] for i in sites),
        {"age": tuple(age.tolist())},
    )


def _found(dataset: Dataset, plan: Specification = PLAN) -> dict[str, tuple[str, ...]]:
    findings = check_assumptions(dataset, build_design(dataset, plan), plan)
    assert all(finding.severity == "warn" for finding in findings)
    return {finding.code: finding.batches for finding in findings}


@pytest.mark.parametrize("seed", range(5))
def test_table_that_meets_the_assumptions_gives_no_warning(seed) -> None:
    assert _found(_table(seed)) == {}


def test_unlike_distribution_is_named() -> None:
    dataset = _table()
    age = np.array(dataset.covariates["age"])
    age[:PER_SITE] = age[:PER_SITE] / 4 + 65

    found = _found(replace(dataset, covariates={"age": tuple(age.tolist())}))

    assert found["covariate_distribution"] == ("a",)


def test_batch_with_another_slope_is_found() -> None:
    dataset = _table()
    values = dataset.values.copy()
    values[:PER_SITE] += 0.06 * (np.array(dataset.covariates["age"])[:PER_SITE, None] - 60)

    assert "unlike_slopes" in _found(dataset.with_values(values))


def test_batch_that_decides_the_slope_is_named() -> None:
    dataset = _table()
    age = np.full(len(dataset.rows), 60.0) + np.random.default_rng(3).normal(0, 0.5, len(dataset.rows))
    age[:PER_SITE] = np.array(dataset.covariates["age"])[:PER_SITE]
    values = dataset.values + 0.02 * (np.array(dataset.covariates["age"]) - age)[:, None]
    values[PER_SITE:] -= 2.0 * (age[PER_SITE:, None] - 60)

    found = _found(replace(dataset.with_values(values), covariates={"age": tuple(age.tolist())}))

    assert found["influential_batch"] == ("a",)


def test_priors_of_two_kinds_of_features_do_not_fit() -> None:
    dataset = _table()
    values = dataset.values.copy()
    values[:PER_SITE, : FEATURES // 2] += 6.0
    values[:PER_SITE, FEATURES // 2 :] -= 6.0

    assert found_batches(_found(dataset.with_values(values))) >= {"a"}


def found_batches(found: dict[str, tuple[str, ...]]) -> set[str]:
    return set(found["priors_do_not_fit"])


def test_priors_are_not_judged_without_empirical_bayes() -> None:
    dataset = _table()
    values = dataset.values.copy()
    values[:PER_SITE, : FEATURES // 2] += 6.0

    assert "priors_do_not_fit" not in _found(dataset.with_values(values), replace(PLAN, eb=False))


def test_gate_holds_the_warnings() -> None:
    dataset = _table()
    values = dataset.values.copy()
    values[:PER_SITE] += 0.06 * (np.array(dataset.covariates["age"])[:PER_SITE, None] - 60)

    assert "unlike_slopes" in {finding.code for finding in check(dataset.with_values(values), PLAN)}
