"""The gate's numbers hold beside batches far away, ties, and features that batch and covariates fit exactly."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.gate_balance import CENTRAL_QUANTILES, _moments, _quantile

PLAN = Specification(covariates=(Covariate("age", "continuous"),))


@pytest.mark.parametrize("far", [0.0, 1e8, 1e12])
def test_moments_of_the_others_keep_their_digits_beside_a_batch_far_away(far) -> None:
    random = np.random.default_rng(4)
    codes = random.permutation(np.repeat(np.arange(5), [3, 1, 8, 20, 11]))
    columns = random.normal(50.0, 10.0, (len(codes), 3))
    columns[codes == 2] += far
    design = Design(tuple("ABCDE"), codes, columns, CovariateCoding((), {}, {}))

    for side, moments in zip((True, False), _moments(design, columns), strict=True):
        for batch in range(5):
            own = columns[(codes == batch) == side]
            away = own - own.mean(axis=0)
            assert moments.counts[batch] == len(own)
            np.testing.assert_allclose(moments.means[batch], own.mean(axis=0), rtol=1e-13)
            np.testing.assert_allclose(
                moments.scatter[batch], away.T @ away, rtol=1e-9, atol=1e-9 * np.square(away).sum()
            )


def test_smd_of_a_batch_far_away_is_that_of_its_definition() -> None:
    dataset = make_input({"A": 30, "B": 40, "C": 35}, seed=3)
    labels, age = np.array(dataset.batches), np.array(dataset.covariates["age"], dtype=float)
    age[labels == "B"] += 1e8
    inside, outside = age[labels == "B"], age[labels != "B"]
    distance = (inside.mean() - outside.mean()) / np.sqrt((inside.var() + outside.var()) / 2)

    found = gate.check(replace(dataset, covariates={"age": tuple(age.tolist())}), PLAN)

    (message,) = [finding.message for finding in found if finding.code == "covariate_imbalance"]
    assert f"B ({distance:.2f})" in message


def test_quantiles_are_those_of_numpy_to_the_last_bit() -> None:
    random = np.random.default_rng(2)
    for count in (1, 2, 3, 40, 41, 81, 200):
        ordered = np.sort(np.round(random.normal(50.0, 10.0, count), 1))
        for part in CENTRAL_QUANTILES:
            assert _quantile(ordered, part) == np.quantile(ordered, part)


def test_features_fitted_exactly_say_nothing_about_priors() -> None:
    dataset = make_input({"A": 30, "B": 40, "C": 35}, seed=3)
    random = np.random.default_rng(1)
    codes = np.unique(np.array(dataset.batches), return_inverse=True)[1]
    age = np.array(dataset.covariates["age"], dtype=float)
    values = random.normal(size=(len(codes), 40)) + random.normal(size=(3, 40))[codes]
    names = tuple(f"f{i}" for i in range(40))
    table = Dataset(values, names, dataset.rows, dataset.batches, dataset.covariates)
    fitted = values.copy()
    fitted[:, 7] = 2.0 * age + codes
    fitted[:, 9] = np.array([0.1, 0.7, 0.4])[codes]
    fitted[:, 11] = 0.1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before, after = gate.check(table, PLAN), gate.check(table.with_values(fitted), PLAN)

    assert "priors_do_not_fit" not in {finding.code for finding in (*before, *after)}
