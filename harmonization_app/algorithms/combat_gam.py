"""ComBat-GAM: ComBat that preserves bent effects of chosen covariates by penalized smooths.

Sources: Pomponio et al., NeuroImage 208:116450 (2020); Beer et al., ComBatFamily (comfam with mgcv::gam); Wood, J R
Stat Soc B 65:95 (2003) for the thin plate regression splines. Batches enter the regression unpenalized, so that
pooled variance, shifts and scales are those of ComBat on its residuals.

Agreement on the published case of 34 features and 370 scans, for GCV and for REML: with comfam and mgcv 1.8-41
within 1e-11 feature SD when `search` is "mgcv" (the default). With `search` "least", which takes each score's
least value to the last bit, a few features have another penalty, because mgcv stops before it or at a local
minimum: the difference from mgcv is at most 0.032 SD for GCV (one feature; elsewhere 1e-3, through the shared
prior) and 0.061 SD for REML (two features; elsewhere 2e-3). Held against mgcv itself on simulated data: of 300
features of 1,000 scans and 20 batches the effective degrees of freedom agree within 1e-10 (REML) and 4e-7 (GCV, whose
last step mgcv takes or leaves by rounding), with two smooths at once within 1e-8.

A feature with missing values is fitted on the scans that show it, its penalties chosen on those alone, as mgcv drops
rows; then as in ComBat. Its columns are those of all scans, so that one model corrects all features: where the scans
that show it have every value of the covariate, it is mgcv's fit of those scans (effective degrees of freedom within
1e-12 on the published case with 5 % of its cells missing and ages in whole years). Where values of the covariate are
missing with their scans mgcv places other knots: with ages to a tenth of a year on that case the degrees of freedom
differ by up to 0.05 (GCV) and 0.004 (REML), the pooled variance by up to 4e-4 of itself.

With a categorical covariate comfam's formula holds a column that the others determine, and mgcv's REML score counts it;
`search` "mgcv" follows, to equal comfam. mgcv on the same model without that column chooses other penalties (fitted
values differed by up to 4e-3 SD on 20 simulated features); `search` "least" counts the columns rightly and finds those.

Limits: neuroHarmonize's engine (penalized B-splines, the penalty by a random five-fold split) is not reproduced:
its seed alone moves a value by up to 0.035 mm, and its result lies 0.14 SD from mgcv's on that case. The distinct
values of the smoothed covariates are part of the model. Of more than 2,000 of them that many are taken at equal ranks,
where mgcv draws them at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms import kernel, penalized_fit, penalty_mgcv, penalty_start
from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import (
    Design,
    as_numbers,
    build_design,
    code_covariates,
    select_features,
)
from harmonization_app.algorithms.model import CovariateCoding, Model
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.penalty import Problem, least_score
from harmonization_app.algorithms.smooth import NULL_SPACE, Smooth, distinct_knots, place_smooth
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed, stops

BASIS_SIZE = 10
LARGEST_BASIS = 40
STRAIGHT_BELOW = 1.01
OPTIONS: dict[str, Any] = {
    "smooths": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "basis_size": {
                    "type": "integer",
                    "minimum": NULL_SPACE + 1,
                    "maximum": LARGEST_BASIS,
                    "default": BASIS_SIZE,
                    "description": "columns of the smooth, its constant and straight line among them",
                }
            },
        },
        "description": 'continuous covariates whose effect may bend, such as {"age": {"basis_size": 10}}',
    },
    "penalty": {
        "enum": ["gcv", "reml"],
        "default": "gcv",
        "description": "criterion of the penalties: generalized cross-validation or restricted likelihood",
    },
    "search": {
        "enum": ["mgcv", "least"],
        "default": "mgcv",
        "description": "stop where R's mgcv stops, or at the least score; the latter for one smooth",
    },
}


class CombatGam(Combat):
    """ComBat with penalized smooths of continuous covariates, their penalties chosen feature by feature."""

    id: ClassVar[str] = "combat-gam"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "ComBat-GAM"
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.combat_gam",
        "harmonization_app.algorithms.penalized_fit",
        "harmonization_app.algorithms.penalty",
        "harmonization_app.algorithms.penalty_mgcv",
        "harmonization_app.algorithms.penalty_start",
        "harmonization_app.algorithms.smooth",
    )
    limits: ClassVar[tuple[str, ...]] = (
        "The flexibility of each smooth is chosen from the data, so a plan fixes the rule and not the curve; where "
        "the curve itself must be fixed beforehand, use combat-spline.",
        "Where one batch alone covers a part of the covariate's range, the curve there rests on that batch and its "
        "effect cannot be told from the batch's.",
        "A feature with missing values is fitted on the scans that show it, its penalty chosen on them, but with the "
        "columns of all scans; mgcv alone would place them by those scans.",
        "With the search of mgcv the penalties depend on the units of the values: metres instead of millimetres move "
        "the result by up to 0.02 SD in our cases. A feature may also stop at a local minimum, as in mgcv. The search "
        "for the least score does neither.",
        "By REML with a categorical covariate the search of mgcv counts one column too many, as ComBatFamily does: "
        "fitted values moved by up to 0.004 SD in our case. The search for the least score counts rightly.",
        "The published engine of neuroHarmonize (random folds) is not reproduced: its seed moves its result.",
        "The model holds the distinct values of each smoothed covariate, without the scans they belong to.",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(OPTIONS)
        schema["properties"]["options"]["required"] = ["smooths"]
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate and of the smooths."""
        findings = super().validate(dataset, specification)
        if stops(findings):
            return findings
        return (*_check_smooths(dataset, specification), *findings)

    def covariate_columns(self, model: Model, dataset: Dataset) -> FloatArray:
        """Return the plain covariate columns and, after them, those of the smooths."""
        plain = code_covariates(dataset, model.coding)
        return _expand(plain, model.coding, _stored_smooths(model))

    def estimate(
        self, dataset: Dataset, specification: Specification, findings: tuple[Finding, ...]
    ) -> Model:
        """Return the model of a dataset that passed `validate`, with its smooths and their penalties."""
        dataset = select_features(dataset, specification.features)
        options = read_options(self.parameters_schema(), specification)
        design = build_design(dataset, specification)
        smooths = _place_smooths(dataset, options["smooths"])
        columns = _columns(design, smooths)
        grouping = kernel.group_rows(design.codes, len(design.batches))
        search = _Search(options, smooths, design, dataset)
        fitted = penalized_fit.fit(dataset.values, grouping, columns, search)
        whole = replace(design, covariates=columns.values)
        model = self.conclude(dataset, specification, whole, fitted.statistics, findings)
        arrays = {**model.arrays, "log_penalties": fitted.log_penalties, "freedom": fitted.freedom}
        for name, smooth in smooths.items():
            arrays |= _stored(name, smooth)
        shown = {name: _summary(own) for name, own in zip(smooths, fitted.freedom, strict=True)}
        facts = {**model.facts, "smooths": shown, "penalty": options["penalty"], "search": options["search"]}
        return replace(model, arrays=arrays, facts=facts)


class _Search:
    """The choice of penalties a plan asks for, with the start that mgcv's search needs, placed once for equal scans."""

    def __init__(
        self, options: dict[str, Any], smooths: dict[str, Smooth], design: Design, dataset: Dataset
    ) -> None:
        self.options = options
        self.smooths = smooths
        self.values = [as_numbers(dataset.covariates[name]) for name in smooths]
        self.dependent = int(any(level is not None for _, level in design.coding.columns))
        bent = [name not in smooths for name, _ in design.coding.columns]
        batches = (design.codes[:, None] == np.arange(len(design.batches))).astype(np.float64)
        self.unpenalized = np.hstack([batches, design.covariates[:, bent]])
        self.start = penalty_start.Start(np.empty(0), 0, 0.0)
        self.scans = np.empty(0, dtype=np.int64)

    def __call__(self, problem: Problem, scans: IntArray) -> FloatArray:
        if self.options["search"] == "least":
            return least_score(problem, self.options["penalty"])
        if not np.array_equal(scans, self.scans):
            own = np.sort(scans)
            values = [column[own] for column in self.values]
            smooths = tuple(self.smooths.values())
            self.start = penalty_start.place_start(
                smooths, values, self.unpenalized[own], problem, self.dependent
            )
            self.scans = scans
        search = penalty_mgcv.gcv_search if self.options["penalty"] == "gcv" else penalty_mgcv.reml_search
        return search(problem, self.start)


def _columns(design: Design, smooths: dict[str, Smooth]) -> penalized_fit.Columns:
    values = _expand(design.covariates, design.coding, smooths)
    start, slices = design.covariates.shape[1], []
    for smooth in smooths.values():
        slices.append(slice(start, start + smooth.weights.shape[1]))
        start = slices[-1].stop
    penalties = tuple(smooth.penalty for smooth in smooths.values())
    return penalized_fit.Columns(values, tuple(slices), penalties)


def _expand(plain: FloatArray, coding: CovariateCoding, smooths: dict[str, Smooth]) -> FloatArray:
    position = {name: index for index, (name, level) in enumerate(coding.columns) if level is None}
    bent = [smooth.columns(plain[:, position[name]]) for name, smooth in smooths.items()]
    return np.hstack([plain, *bent])


def _stored(name: str, smooth: Smooth) -> dict[str, FloatArray]:
    return {
        f"smooth_{name}_knots": smooth.knots,
        f"smooth_{name}_place": np.array([smooth.centre, smooth.spread]),
        f"smooth_{name}_weights": smooth.weights,
        f"smooth_{name}_penalty": smooth.penalty,
    }


def _stored_smooths(model: Model) -> dict[str, Smooth]:
    smooths = {}
    for name in model.specification.options["smooths"]:
        knots, place, weights, penalty = (
            model.arrays[f"smooth_{name}_{part}"] for part in ("knots", "place", "weights", "penalty")
        )
        smooths[name] = Smooth(knots, float(place[0]), float(place[1]), weights, penalty)
    return smooths


def _summary(freedom: FloatArray) -> dict[str, Any]:
    """Return the effective degrees of freedom over the features, and how many of them are a straight line."""
    known = freedom[~np.isnan(freedom)]
    if not known.size:
        return {"features": 0}
    return {
        "features": int(known.size),
        "least_freedom": float(known.min()),
        "median_freedom": float(np.median(known)),
        "greatest_freedom": float(known.max()),
        "straight": int(np.sum(known < STRAIGHT_BELOW)),
    }


def _check_smooths(dataset: Dataset, specification: Specification) -> list[Finding]:
    smooths = specification.options["smooths"]
    kinds = {covariate.name: covariate.kind for covariate in specification.covariates}
    unfit = tuple(name for name in smooths if kinds.get(name) != "continuous")
    if unfit:
        message = (
            f"Smooths are planned for {listed(unfit)}, which the plan does not name as continuous covariates."
        )
        return [Finding("smooth_covariate", "stop", message, columns=unfit)]
    findings = []
    if len(smooths) > 1 and specification.options.get("search") == "least":
        message = "The search for the least score knows one smooth. Plan the search of mgcv, or one smooth."
        findings.append(Finding("search_of_one_smooth", "stop", message, columns=tuple(smooths)))
    columns = 0
    for name, own in smooths.items():
        size = own.get("basis_size", BASIS_SIZE)
        columns += size - 1
        distinct = len(distinct_knots(as_numbers(dataset.covariates[name])))
        if distinct < size:
            message = (
                f"{name} has {distinct} different values and carries no smooth of {size} columns. Plan a "
                "smaller basis_size, or the covariate without a smooth."
            )
            findings.append(Finding("smooth_too_few_values", "stop", message, columns=(name,)))
    if not findings:
        findings = _check_scans(dataset, specification, columns)
    return findings


def _check_scans(dataset: Dataset, specification: Specification, smooth_columns: int) -> list[Finding]:
    design = build_design(dataset, specification)
    names = tuple(specification.options["smooths"])
    needed = len(design.batches) + design.covariates.shape[1] - len(names) + smooth_columns
    if len(dataset.rows) <= needed:
        message = (
            f"{len(dataset.rows)} scans do not determine {needed} coefficients of batches, covariates and smooths. "
            "Plan a smaller basis_size."
        )
        return [Finding("smooth_too_many_columns", "stop", message, columns=names)]
    columns = _columns(design, _place_smooths(dataset, specification.options["smooths"]))
    if penalized_fit.are_determined(columns, kernel.group_rows(design.codes, len(design.batches))):
        return []
    message = (
        f"Within the batches {listed(names)} has too few different values for its smooth: what bends and what differs "
        "between batches cannot be told apart. Plan a smaller basis_size, or the covariate without a smooth."
    )
    return [Finding("smooth_not_determined", "stop", message, columns=names)]


def _place_smooths(dataset: Dataset, smooths: Mapping[str, Mapping[str, int]]) -> dict[str, Smooth]:
    return {
        name: place_smooth(as_numbers(dataset.covariates[name]), own.get("basis_size", BASIS_SIZE))
        for name, own in smooths.items()
    }
