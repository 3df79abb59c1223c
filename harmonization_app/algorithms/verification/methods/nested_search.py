"""The order search of nested ComBat, order after order, feature after feature (Horng et al. 2022)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import numpy as np
from scipy.stats import anderson_ksamp, ks_2samp

from harmonization_app.algorithms.base import CovariateValue, Dataset, FloatArray, IntArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_text
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input, nested
from harmonization_app.algorithms.verification.pooled import Correction


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized in the order that leaves the fewest differences in `fitted`."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken."""
    order = chosen_order(fitted, specification)
    return nested.compute(fitted, replace(specification, batch_variables=order, options={}), scans)


def chosen_order(dataset: Dataset, specification: Specification) -> tuple[str, ...]:
    """Return the order of the batch variables that the search takes."""
    variables = specification.batch_variables
    test = specification.options.get("test", "anderson_darling")
    if specification.options.get("search", "every_order") == "every_order":
        counts = {
            order: _left(dataset, specification, order, variables, test) for order in permutations(variables)
        }
        return min(counts, key=lambda order: counts[order])
    done: tuple[str, ...] = ()
    while len(done) < len(variables):
        left = [name for name in variables if name not in done]
        steps = {name: _left(dataset, specification, (*done, name), (name,), test) for name in left}
        done = (*done, min(left, key=lambda name: steps[name]))
    return done


def _left(
    dataset: Dataset,
    specification: Specification,
    order: tuple[str, ...],
    counted: tuple[str, ...],
    test: str,
) -> int:
    """Return how many (feature, variable) pairs differ at 5 % after ComBat in `order`."""
    plan = replace(specification, batch_variables=order, options={})
    values = nested.correct(dataset, plan, dataset)
    found = 0
    for name in counted:
        labels = np.array([plain_text(value) for value in dataset.covariates[name]])
        for column in values.T:
            parts = [column[(labels == level) & ~np.isnan(column)] for level in sorted(set(labels))]
            found += _probability(parts, test) < 0.05
    return found


def _probability(parts: list[FloatArray], test: str) -> float:
    if test == "kolmogorov_smirnov":
        return float(ks_2samp(*parts).pvalue)
    if len(np.unique(np.concatenate(parts))) == 1:
        return 1.0
    with warnings.catch_warnings():
        # SciPy tells that it cuts p at the ends of its table, which does not touch 5 %.
        warnings.simplefilter("ignore", UserWarning)
        return float(anderson_ksamp(parts, variant="midrank").pvalue)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite, whose best order is not the plan's."""
    dataset, new = (
        _with_linked_makers(table, seed) for table, seed in zip(case_input(), (35, 36), strict=True)
    )
    plan = replace(PLAIN_SPECIFICATION, batch_variables=("maker", "kernel", "contrast"))
    yield Input("every_order", dataset, plan)
    yield Input("without_eb", dataset, replace(plan, eb=False))
    stepwise = {"search": "stepwise", "test": "kolmogorov_smirnov"}
    yield Input("stepwise", dataset, replace(plan, options=stepwise))
    yield Input("stepwise_anderson_darling", dataset, replace(plan, options={"search": "stepwise"}))
    yield Input("apply_new_scans", dataset, plan, new)


def _with_linked_makers(dataset: Dataset, seed: int) -> Dataset:
    """Return the dataset with three batch variables that go together in most scans."""
    random = np.random.default_rng(seed)
    scans, features = dataset.values.shape
    maker: IntArray = np.asarray(random.integers(0, 2, size=scans), dtype=np.int64)
    kernel, contrast = (np.where(random.random(scans) < 0.8, maker, 1 - maker) for _ in range(2))
    effect = np.outer(maker, np.linspace(0.2, 0.5, features)) - np.outer(
        kernel, np.linspace(0.6, 0.2, features)
    )
    effect += contrast[:, None] * random.normal(0.2, 0.4, (scans, features))
    labels: dict[str, tuple[CovariateValue, ...]] = {
        "maker": tuple("XY"[i] for i in maker),
        "kernel": tuple(kernel.tolist()),
        "contrast": tuple("ny"[i] for i in contrast),
    }
    values = (dataset.values + effect).round(4)
    return replace(dataset, values=values, covariates={**dataset.covariates, **labels})
