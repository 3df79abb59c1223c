"""Nested ComBat in an order searched for in the data (OPNested, and the stepwise search before it).

Sources: Horng et al., Sci Rep 12:19009 (2022): every order of the batch variables is tried, and the one taken after
which the fewest (feature, batch variable) pairs differ at 5 % by the k-sample Anderson-Darling test. Horng et al., Sci
Rep 12:4493 (2022): step by step the variable whose ComBat leaves the fewest features different in that variable, by
the Kolmogorov-Smirnov test (`search` "stepwise", `test` "kolmogorov_smirnov"). Of orders that are equal the first in
the plan's sequence of variables is taken, as the published programs do. The orders and results of both are reproduced:
opnested-combat (git c7313c7) within 1e-9 feature SD in float64, generalized-combat (git bba0090) within its own
float32 rounding of 1e-5.

Limits: the order is chosen by the test that is then shown, on the same scans, so the search is exploratory and its
count of differences too good. With the order it found, `nested` can be planned beforehand for other data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.stats import ks_2samp

from harmonization_app.algorithms.base import (
    Dataset,
    Finding,
    FloatArray,
    IntArray,
    require_no_stops,
)
from harmonization_app.algorithms.compound import constant_cells, fit_step
from harmonization_app.algorithms.design import level_texts, select_features
from harmonization_app.algorithms.k_sample import anderson_darling
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.nested import LEFT_FOR_ONE, Nested, plan_steps
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import listed, stops

SIGNIFICANCE = 0.05
# Five variables have 120 orders and 325 fits; a sixth would have 720 and 1,956.
MOST_VARIABLES = 5
OPTIONS: dict[str, Any] = {
    "search": {
        "enum": ["every_order", "stepwise"],
        "default": "every_order",
        "description": "try every order, or choose one variable after the other",
    },
    "test": {
        "enum": ["anderson_darling", "kolmogorov_smirnov"],
        "default": "anderson_darling",
        "description": "test of what is left; Kolmogorov-Smirnov for batch variables of two levels only",
    },
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One order that was tried and how many features still differ, by batch variable."""

    order: tuple[str, ...]
    significant: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        return sum(count for _, count in self.significant)

    def to_json(self) -> dict[str, Any]:
        return {"order": list(self.order), "significant": dict(self.significant), "total": self.total}


class NestedSearch(Nested):
    """Nested ComBat in the order that leaves the fewest significant differences; exploratory by nature."""

    id: ClassVar[str] = "nested-search"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "Nested ComBat, order searched (OPNested)"
    exploratory: ClassVar[bool] = True
    limits: ClassVar[tuple[str, ...]] = (
        "The order is chosen by looking at the result: the search is exploratory, never a primary analysis. Plan "
        "nested with a fixed order instead.",
        "The count of significant features that chose the order is computed on the same scans and therefore too "
        "good; take held-out evidence.",
        "Batch variables that go together (one maker, one kernel) cannot be told apart in any order.",
        "Differences of the covariates between batches count as significant differences too: the test knows no "
        "covariates, as published.",
        f"{LEFT_FOR_ONE} What it keeps may count as a difference in every order.",
        f"At most {MOST_VARIABLES} batch variables.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Nested.source_modules,
        "harmonization_app.algorithms.k_sample",
        "harmonization_app.algorithms.nested_search",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = super().parameters_schema()
        schema["properties"]["batch_variables"] |= {"minItems": 2, "maxItems": MOST_VARIABLES}
        schema["properties"]["options"] |= {"additionalProperties": False, "properties": OPTIONS}
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings for each batch variable, and a stop where the test does not suit one."""
        findings = super().validate(dataset, specification)
        if stops(findings):
            return findings
        options = read_options(self.parameters_schema(), specification)
        return (*findings, *_check_levels(dataset, specification, options["test"]))

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Search the order, then fit in it; `facts` hold every order tried. Raises HarmonizationRefused."""
        require_no_stops(self.validate(dataset, specification))
        options = read_options(self.parameters_schema(), specification)
        chosen = select_features(dataset, specification.features)
        search = _every_order if options["search"] == "every_order" else _stepwise
        order, trials = search(chosen, specification, options["test"])
        model = super().fit(dataset, replace(specification, batch_variables=order))
        facts = {
            **model.facts,
            "order": list(order),
            "search": options["search"],
            "test": options["test"],
            "tried": [trial.to_json() for trial in trials],
        }
        return replace(model, specification=specification, facts=facts)


def _every_order(
    dataset: Dataset, specification: Specification, test: str
) -> tuple[tuple[str, ...], list[Trial]]:
    """Return the order with the fewest differences, and every order in the sequence of the plan.

    Orders that begin alike share the steps they have in common.
    """
    variables = specification.batch_variables
    steps = {step.name: step for step in plan_steps(dataset, specification)}
    constant = {name: constant_cells(step, dataset) for name, step in steps.items()}
    trials: list[Trial] = []

    def descend(current: Dataset, done: tuple[str, ...]) -> None:
        for name, step in steps.items():
            if name not in done:
                descend(fit_step(step, current, constant[name])[1], (*done, name))
        if len(done) == len(variables):
            trials.append(Trial(done, tuple((name, _significant(current, name, test)) for name in variables)))

    descend(dataset, ())
    return min(trials, key=lambda trial: trial.total).order, trials


def _stepwise(
    dataset: Dataset, specification: Specification, test: str
) -> tuple[tuple[str, ...], list[Trial]]:
    """Return the order by which each step leaves the fewest differences in its own variable, and every step."""
    steps = {step.name: step for step in plan_steps(dataset, specification)}
    constant = {name: constant_cells(step, dataset) for name, step in steps.items()}
    trials: list[Trial] = []
    done: tuple[str, ...] = ()
    current = dataset
    while len(done) < len(steps):
        left = [name for name in steps if name not in done]
        tables = {name: fit_step(steps[name], current, constant[name])[1] for name in left}
        tried = [
            Trial((*done, name), ((name, _significant(table, name, test)),)) for name, table in tables.items()
        ]
        trials += tried
        done = min(tried, key=lambda trial: trial.total).order
        current = tables[done[-1]]
    return done, trials


def _significant(dataset: Dataset, name: str, test: str) -> int:
    """Return how many features differ between the levels of a batch variable."""
    codes = _codes(level_texts(dataset.covariates[name]))
    tests = {"anderson_darling": anderson_darling, "kolmogorov_smirnov": _kolmogorov_smirnov}
    return int((tests[test](dataset.values, codes) < SIGNIFICANCE).sum())


def _kolmogorov_smirnov(values: FloatArray, codes: IntArray) -> FloatArray:
    """Return the p value of each feature over two groups, missing cells left out."""
    seen = ~np.isnan(values)
    probabilities = [
        ks_2samp(*(column[own & (codes == group)] for group in (0, 1))).pvalue
        for column, own in zip(values.T, seen.T, strict=True)
    ]
    return np.array(probabilities, dtype=np.float64)


def _codes(labels: Sequence[str | None]) -> IntArray:
    return np.unique([str(label) for label in labels], return_inverse=True)[1].astype(np.int64)


def _check_levels(dataset: Dataset, specification: Specification, test: str) -> list[Finding]:
    """Return a stop where the Kolmogorov-Smirnov test meets a batch variable of more than two levels."""
    if test != "kolmogorov_smirnov":
        return []
    many = tuple(
        name for name in specification.batch_variables if len(set(level_texts(dataset.covariates[name]))) != 2
    )
    if not many:
        return []
    message = (
        f"The Kolmogorov-Smirnov test compares two levels; {listed(many)} has more. Plan the test "
        "anderson_darling."
    )
    return [Finding("test_needs_two_levels", "stop", message, columns=many)]
