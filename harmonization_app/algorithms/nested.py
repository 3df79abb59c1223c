"""Nested ComBat: several batch variables corrected one after the other, in an order fixed beforehand.

Source: Horng et al., Sci Rep 12:4493 (2022). Each step is ComBat for one variable on the values the step before
left, with the same covariates; the other batch variables are not covariates, as published. In float64 equal to
neuroCombat run in that order within 1e-9 feature SD.

Limits: a later step may bring back a little of what an earlier one removed; where batch variables go together
(one maker, one kernel) the order decides which of them is credited, so it belongs in the plan and not in the
data. An order chosen by looking at the result is exploratory. A feature that the scans of one batch variable do not
give is left uncorrected for that variable alone; its flag, `unusable: VARIABLE`, names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from harmonization_app.algorithms.base import (
    Algorithm,
    Capabilities,
    Dataset,
    Finding,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.compound import Labels, Part, Step, apply_steps, fit_steps, pack
from harmonization_app.algorithms.design import level_texts, merged_labels, select_features
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import base_facts, batch_sizes, open_fit, run_gate
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed, stops

UNUSABLE = "unusable"
# Findings of the gate on features that a step passes through.
PASSED_THROUGH = ("feature_lacks_batch", "feature_not_estimable")
LEFT_FOR_ONE = (
    "A feature that one batch variable cannot be estimated for (too few observed scans in a level), passed through as "
    "planned, keeps that variable's effect and is corrected for the others; its flag names the variable."
)


class Nested(Algorithm):
    """ComBat for each of the plan's batch variables in turn."""

    id: ClassVar[str] = "nested"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "Nested ComBat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=True, train_apply=True, nonparametric=True, mean_only=True, without_eb=True
    )
    limits: ClassVar[tuple[str, ...]] = (
        "The order of the batch variables is part of the plan and changes the result; an order chosen by "
        "looking at the result is exploratory.",
        "A later step may bring back a little of what an earlier one removed; variables that go together "
        "(one maker, one kernel) cannot be told apart, and the first in the order is credited.",
        "Every combination of variables need not be large, but every level of every variable must meet the "
        "batch minimum.",
        "The other batch variables are not in the model of a step, so an imbalance between them enters its "
        "estimates.",
        LEFT_FOR_ONE,
        *Combat.limits,
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.compound",
        "harmonization_app.algorithms.nested",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(fixed={"reference_batch": None, "merge_batches": {}})
        del schema["properties"]["batch_variables"]["const"]
        schema["properties"]["batch_variables"] |= {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "uniqueItems": True,
        }
        schema["required"] = ["batch_variables"]
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the gate for each batch variable, each named before its message."""
        return run_gate(self, dataset, specification, _check_variables, _check_labels)

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Fit the steps one after the other. Raises HarmonizationRefused."""
        dataset, findings = open_fit(self, dataset, specification)
        parts = fit_steps(plan_steps(dataset, specification), dataset)
        facts = {**base_facts(dataset, findings), "order": list(specification.batch_variables)}
        sizes = batch_sizes(dataset, specification)
        packed = pack(self, specification, dataset, sizes, parts, facts)
        return replace(packed, flags=_flags_by_variable(packed.flags, parts))

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans step by step by frozen parameters. Raises HarmonizationRefused."""
        dataset = select_features(dataset, model.features)
        require_no_stops(_check_labels(dataset, model.specification, least=1))
        return apply_steps(model, dataset, (), lambda name: _levels(dataset, name))


def plan_steps(dataset: Dataset, specification: Specification) -> list[Step]:
    """Return ComBat of each batch variable, in the order of the plan."""
    own = replace(specification, batch_variables=())
    return [Step(name, _levels(dataset, name), own) for name in specification.batch_variables]


def _levels(dataset: Dataset, name: str) -> Labels:
    return tuple(level_texts(dataset.covariates[name]))


def _check_variables(dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return the findings of the gate for each batch variable up to the first that stops."""
    findings: list[Finding] = []
    for step in plan_steps(dataset, specification):
        if not stops(findings):
            own = gate.check(replace(dataset, batches=step.batches), step.specification)
            findings += [_of_variable(item, step.name) for item in own]
    return findings


def _of_variable(finding: Finding, name: str) -> Finding:
    """Return the finding with its batch variable before the message."""
    message = f"Batch variable {name}: {finding.message}"
    if finding.code in PASSED_THROUGH and finding.severity != "stop":
        message += (
            f" That is so for {name} alone: they are corrected for a batch variable without such a finding."
        )
    return replace(finding, message=message)


def _flags_by_variable(
    flags: Mapping[str, tuple[str, ...]], parts: Sequence[Part]
) -> dict[str, tuple[str, ...]]:
    """Return the flags with `unusable` for features that no step corrects, `unusable: VARIABLE` for those some do."""
    left = {part.name: part.model.flags.get(UNUSABLE, ()) for part in parts}
    wholly = set.intersection(*(set(names) for names in left.values()))
    partly = {
        f"{UNUSABLE}: {variable}": tuple(name for name in names if name not in wholly)
        for variable, names in left.items()
    }
    whole = tuple(name for name in flags.get(UNUSABLE, ()) if name in wholly)
    found = {**flags, UNUSABLE: whole, **partly}
    return {code: names for code, names in found.items() if names}


def _check_labels(dataset: Dataset, specification: Specification, least: int = 2) -> list[Finding]:
    """Return stops for batch variables that the table lacks, that are covariates, or the batch column at fault."""
    lacking = tuple(name for name in specification.batch_variables if name not in dataset.covariates)
    if lacking:
        message = f"The table lacks the batch variable(s) {listed(lacking)}."
        return [Finding("batch_variable_lacking", "stop", message, columns=lacking)]
    named = {covariate.name for covariate in specification.covariates}
    both = tuple(name for name in specification.batch_variables if name in named)
    if both:
        message = f"{listed(both)} cannot be corrected for and preserved at once; name it once in the plan."
        return [Finding("batch_variable_is_covariate", "stop", message, columns=both)]
    labels = merged_labels(dataset, specification)
    missing = tuple(row for row, label in zip(dataset.rows, labels, strict=True) if label is None)
    if missing:
        message = f"The batch label, by which results are shown, is missing in {listed(missing)}."
        return [Finding("missing_batch", "stop", message, rows=missing)]
    if len(set(labels)) < least:
        return [Finding("one_batch", "stop", "There is one batch only; nothing can be compared.")]
    return []
