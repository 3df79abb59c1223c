"""ComBat with covariates whose effect bends: a fixed natural cubic spline basis, nothing searched or penalized.

The basis is that of R's `splines::ns(x, df)`: interior knots at the quantiles 1/df, 2/df, ... of the fitted
data, boundary knots at their extremes, linear beyond (Hastie, in Chambers and Hastie, Statistical Models in S
(1992), chapter 7). It is deterministic, so that a plan can fix it. Equal to R neuroCombat on the basis of
splines::ns(age, df=4) within 1e-9 feature SD.

Limits: knots follow the quantiles of all scans together; where one batch covers a part of the range alone, the
curve there rests on that batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy.interpolate import BSpline

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import Design, as_numbers, build_design, code_covariates
from harmonization_app.algorithms.model import CovariateCoding, Model
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.gate_covariates import check_rank
from harmonization_app.diagnostics.wording import listed, stops

ORDER = 4
MAXIMUM_DEGREES = 10
OPTIONS: dict[str, Any] = {
    "splines": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "integer", "minimum": 2, "maximum": MAXIMUM_DEGREES},
        "description": "degrees of freedom of the natural spline by continuous covariate, such as age: 4",
    },
}


class CombatSpline(Combat):
    """ComBat that preserves nonlinear effects of chosen covariates by natural cubic splines of fixed degree."""

    id: ClassVar[str] = "combat-spline"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "ComBat with natural splines"
    limits: ClassVar[tuple[str, ...]] = (
        "The effect of a covariate may bend but must be the same curve in all batches.",
        "Knots stand at quantiles of all scans together: where one batch alone covers a part of the range, "
        "the curve there rests on that batch, and the batch's effect cannot be told from the curve.",
        "Beyond the range fitted the curve is continued as a straight line; such scans are flagged.",
        "The degrees of freedom are the plan's choice: nothing is searched, and too many cost small batches "
        "their residuals.",
        *Combat.limits[1:],
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.combat_spline",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(OPTIONS)
        schema["properties"]["options"]["required"] = ["splines"]
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate, of the knots and of the rank of the expanded design."""
        findings = super().validate(dataset, specification)
        if stops(findings):
            return findings
        own = _check_splines(dataset, specification)
        if not own:
            own = check_rank(self.design(dataset, specification), self.column_names(specification, dataset))
            own = [finding for finding in own if finding.severity == "stop"]
        return (*own, *findings)

    def column_names(self, specification: Specification, dataset: Dataset) -> tuple[str, ...]:
        """Return the names of the expanded columns, in design order."""
        coding = build_design(dataset, specification).coding
        names: list[str] = []
        for (covariate, level), name in zip(coding.columns, coding.column_names, strict=True):
            degrees = specification.options["splines"].get(covariate) if level is None else None
            names += [name] if degrees is None else [f"{name} (spline {i + 1})" for i in range(degrees)]
        return tuple(names)

    def design(self, dataset: Dataset, specification: Specification) -> Design:
        """Return the design whose chosen covariates are expanded; the coding stays that of the raw ones."""
        options = read_options(self.parameters_schema(), specification)
        raw = build_design(dataset, specification)
        knots = _knots(dataset, options["splines"])
        return replace(raw, covariates=_expand(raw.covariates, raw.coding, knots))

    def covariate_columns(self, model: Model, dataset: Dataset) -> FloatArray:
        knots = {
            name.removeprefix("knots_"): array
            for name, array in model.arrays.items()
            if name.startswith("knots_")
        }
        return _expand(code_covariates(dataset, model.coding), model.coding, knots)

    def estimate(
        self, dataset: Dataset, specification: Specification, findings: tuple[Finding, ...]
    ) -> Model:
        """Return ComBat's model on the expanded design, with the knots it needs to correct other scans."""
        model = super().estimate(dataset, specification, findings)
        knots = _knots(dataset, read_options(self.parameters_schema(), specification)["splines"])
        arrays = {**model.arrays, **{f"knots_{name}": array for name, array in knots.items()}}
        shown = {name: array.tolist() for name, array in knots.items()}
        return replace(model, arrays=arrays, facts={**model.facts, "knots": shown})


def natural_spline(values: FloatArray, knots: FloatArray) -> FloatArray:
    """Return the natural cubic spline basis [scans x (knots - 1)] of R's splines::ns without intercept.

    `knots` are the boundary knots with the interior ones between them. The second derivative is zero at both
    boundaries: the cubic B-splines are rotated out of it by the QR decomposition of those two conditions.
    Values beyond a boundary follow its tangent.
    """
    low, high = knots[0], knots[-1]
    whole = np.concatenate([[low] * (ORDER - 1), knots, [high] * (ORDER - 1)])
    cubic = BSpline(whole, np.eye(len(whole) - ORDER), ORDER - 1)
    slope, bend = cubic.derivative(1), cubic.derivative(2)
    inside = np.clip(values, low, high)
    basis = cubic(inside) + (values - inside)[:, None] * slope(inside)
    # Without intercept: the first B-spline is left out of the basis and of the conditions.
    conditions = np.stack([bend(low), bend(high)])[:, 1:].T
    rotation = np.linalg.qr(conditions, mode="complete")[0][:, 2:]
    return np.asarray(basis[:, 1:] @ rotation)


def place_knots(values: FloatArray, degrees: int) -> FloatArray:
    """Return boundary and interior knots of `degrees` columns at equal quantiles of `values`."""
    return np.quantile(values, np.linspace(0.0, 1.0, degrees + 1))


def _knots(dataset: Dataset, splines: dict[str, int]) -> dict[str, FloatArray]:
    return {
        name: place_knots(as_numbers(dataset.covariates[name]), degrees) for name, degrees in splines.items()
    }


def _expand(covariates: FloatArray, coding: CovariateCoding, knots: dict[str, FloatArray]) -> FloatArray:
    parts = [
        natural_spline(covariates[:, index], knots[name])
        if level is None and name in knots
        else covariates[:, index : index + 1]
        for index, (name, level) in enumerate(coding.columns)
    ]
    return np.hstack(parts) if parts else covariates


def _check_splines(dataset: Dataset, specification: Specification) -> list[Finding]:
    findings = []
    kinds = {covariate.name: covariate.kind for covariate in specification.covariates}
    splines = specification.options["splines"]
    unfit = tuple(name for name in splines if kinds.get(name) != "continuous")
    if unfit:
        message = (
            f"Splines are planned for {listed(unfit)}, which the plan does not name as continuous covariates."
        )
        return [Finding("spline_covariate", "stop", message, columns=unfit)]
    for name, degrees in splines.items():
        if np.any(np.diff(place_knots(as_numbers(dataset.covariates[name]), degrees)) <= 0):
            message = (
                f"{name} has too few different values for {degrees} spline columns: two knots fall together. "
                "Plan fewer."
            )
            findings.append(Finding("knots_coincide", "stop", message, columns=(name,)))
    return findings
