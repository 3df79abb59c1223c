"""Sensitivity analyses that the plan names beforehand: does the answer hold without the method, a batch, with another?

Kinds: `unharmonized` (the values as they are, batch as a fixed effect in the analysis model), `leave_one_batch_out`
(the method fitted anew without each batch), `algorithm` (another method on the same data). Bounded: on at most a
million cells of features drawn by the seed (mixed models on 60 features), and the 25 largest batches left out.

JSON of one analysis: {name, kind, algorithm, state: done or refused, reason, rows, features, of_features,
covariate_effects, batch_effects, against_main, left_out}
covariate_effects  as in effects.py, of this analysis; the stage compared with the main run is before_batch_adjusted
                   where unharmonized, else after. leave_one_batch_out: those of the main run, each covariate with
                   range: {lowest, highest}, of the median coefficient over the batches left out
batch_effects      {analysis, main}: summaries as in effects.py, in-sample, of this analysis and of the main run
against_main       {values, covariates}; values: None or {median_sd, q95_sd, greatest_sd, largest: [{row, feature,
                   sd}]}, absolute differences from the main run in SD of the feature before; covariates: [{covariate,
                   features, covered, same_sign, median_difference_in_errors, greatest_difference_in_errors,
                   significance_kept}]: `covered` is the share of features whose main estimate lies in this analysis's
                   interval, differences are in its standard errors
left_out           leave_one_batch_out only: [{batch, state, reason, rows, median_move_sd, greatest_move_sd, covariates:
                   [{covariate, median, median_move_in_errors, greatest_move_in_errors, same_sign}]}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, Result
from harmonization_app.algorithms.design import Design, build_design, feature_positions, select_features
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.batch_tests import measure_batch_effects, summarize
from harmonization_app.diagnostics.covariate_effects import (
    ADJUSTED,
    AFTER,
    BEFORE,
    CovariateEffects,
    Estimates,
    errors_named,
    estimate_effects,
)
from harmonization_app.diagnostics.scope import draw, draw_features, narrowed, plan_for
from harmonization_app.diagnostics.sensitivity_comparison import (
    compare_effects,
    effect_move,
    value_differences,
)
from harmonization_app.diagnostics.subjects import Subjects, repeated_subjects
from hub.core.errors import HubError

Kind = Literal["unharmonized", "leave_one_batch_out", "algorithm"]
MOST_CELLS, MIXED_MODEL_FEATURES, MOST_BATCHES = 1_000_000, 60, 25
SINGULAR = "The computation became singular on these data."


@dataclass(frozen=True, slots=True, eq=False)
class SensitivityAnalysis:
    """One analysis of the plan; `algorithm` and `specification` are the other method's, for that kind only."""

    kind: Kind
    name: str
    algorithm: Algorithm | None = None
    specification: Specification | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Main:
    """The main run on the drawn features: what it was made of and what came out."""

    algorithm: Algorithm
    dataset: Dataset
    specification: Specification
    design: Design
    subjects: Subjects | None
    after: FloatArray
    spread: FloatArray
    of_features: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.design.coding.column_names

    def effects(self, values: FloatArray, *, with_batch: bool = False) -> Estimates:
        """Return the covariates' effects on values of these scans and features."""
        design = self.design
        return estimate_effects(values, design.codes, design.covariates, self.subjects, with_batch=with_batch)

    def table(self, stages: dict[str, Estimates]) -> CovariateEffects:
        errors = errors_named(self.subjects)
        return CovariateEffects(self.names, self.dataset.features, stages, errors, self.spread)

    def batch_effects(self, values: FloatArray) -> dict[str, Any]:
        tests = measure_batch_effects(
            values, self.design.codes, self.design.covariates, self.dataset.features, ranks_and_scales=False
        )
        return summarize(tests).to_json()


def analyse(
    analyses: Sequence[SensitivityAnalysis],
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    result: Result,
) -> list[dict[str, Any]]:
    """Return each analysis beside the main run, in order; one that cannot be carried out says why.

    `result` is what `algorithm` made of `dataset` as `specification` says; the dataset passed the gate.
    """
    runs = {
        "unharmonized": _unharmonized,
        "leave_one_batch_out": _leave_one_batch_out,
        "algorithm": _other_algorithm,
    }
    found = []
    for analysis in analyses:
        main = _main(analysis, algorithm, dataset, specification, result)
        entry: dict[str, Any] = {
            "name": analysis.name,
            "kind": analysis.kind,
            "algorithm": analysis.algorithm.id if analysis.algorithm else None,
            "state": "done",
            "reason": "",
            "rows": len(dataset.rows),
            "features": len(main.dataset.features),
            "of_features": main.of_features,
            "covariate_effects": {},
            "batch_effects": {},
            "against_main": {},
        }
        try:
            entry |= runs[analysis.kind](analysis, main)
        except HubError as error:
            entry |= {"state": "refused", "reason": error.detail}
        except np.linalg.LinAlgError:
            entry |= {"state": "refused", "reason": SINGULAR}
        found.append(entry)
    return found


def _main(
    analysis: SensitivityAnalysis,
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    result: Result,
) -> _Main:
    dataset = select_features(dataset, result.model.features)
    drawn = draw_features(dataset.values.shape, MOST_CELLS, specification.seed)
    refitted = {"unharmonized": None, "leave_one_batch_out": algorithm, "algorithm": analysis.algorithm}
    again = refitted[analysis.kind]
    if again is not None and again.capabilities.longitudinal:
        drawn = drawn[draw(len(drawn), MIXED_MODEL_FEATURES, specification.seed)]
    own, narrow = narrowed(dataset, specification, drawn)
    after = np.asarray(result.values)[:, feature_positions(dataset, own.features)]
    spread = np.nanstd(own.values, axis=0)
    return _Main(
        algorithm,
        own,
        narrow,
        build_design(own, narrow),
        repeated_subjects(own, narrow),
        after,
        np.where(spread > 0, spread, 1.0),
        len(dataset.features),
    )


def _unharmonized(analysis: SensitivityAnalysis, main: _Main) -> dict[str, Any]:
    values = main.dataset.values
    stages = {BEFORE: main.effects(values), ADJUSTED: main.effects(values, with_batch=True)}
    return {
        "covariate_effects": main.table(stages).to_json(),
        "batch_effects": {"analysis": main.batch_effects(values), "main": main.batch_effects(main.after)},
        "against_main": {
            "values": value_differences(values, main.after, main.spread, main.dataset),
            "covariates": compare_effects(stages[ADJUSTED], main.effects(main.after), main.names),
        },
    }


def _other_algorithm(analysis: SensitivityAnalysis, main: _Main) -> dict[str, Any]:
    if analysis.algorithm is None or analysis.specification is None:
        return {"state": "refused", "reason": "The analysis names no algorithm or no parameters for it."}
    specification = plan_for(analysis.specification, main.dataset.features)
    values = np.asarray(analysis.algorithm.harmonize(main.dataset, specification).values)
    stages = {
        BEFORE: main.effects(main.dataset.values),
        AFTER: main.effects(values),
        ADJUSTED: main.effects(main.dataset.values, with_batch=True),
    }
    return {
        "covariate_effects": main.table(stages).to_json(),
        "batch_effects": {"analysis": main.batch_effects(values), "main": main.batch_effects(main.after)},
        "against_main": {
            "values": value_differences(values, main.after, main.spread, main.dataset),
            "covariates": compare_effects(stages[AFTER], main.effects(main.after), main.names),
        },
    }


def _leave_one_batch_out(analysis: SensitivityAnalysis, main: _Main) -> dict[str, Any]:
    batches, sizes = main.design.batches, main.design.batch_sizes
    if len(batches) < 3:
        return {"state": "refused", "reason": "With two batches none can be left out."}
    chosen = np.sort(np.argsort(-sizes, kind="stable")[:MOST_BATCHES])
    whole = main.effects(main.after)
    left_out = [_without(main, int(index), whole) for index in chosen]
    effects = main.table({AFTER: whole}).to_json()
    for row, entry in enumerate(effects["by_covariate"]):
        known = [item["covariates"][row]["median"] for item in left_out if item["state"] == "done"]
        known = [value for value in known if value is not None]
        entry["range"] = {"lowest": min(known), "highest": max(known)} if known else None
    moves = [item for item in left_out if item["state"] == "done"]
    note = (
        ""
        if len(chosen) == len(batches)
        else f"The {MOST_BATCHES} largest of {len(batches)} batches were left out."
    )
    if not moves:
        return {"state": "refused", "reason": left_out[0]["reason"], "left_out": left_out}
    return {
        "reason": note,
        "covariate_effects": effects,
        "batch_effects": {"main": main.batch_effects(main.after)},
        "against_main": {
            "values": {
                "median_sd": max(item["median_move_sd"] for item in moves),
                "greatest_sd": max(item["greatest_move_sd"] for item in moves),
            },
            "covariates": [],
        },
        "left_out": left_out,
    }


def _without(main: _Main, index: int, whole: Estimates) -> dict[str, Any]:
    """Return what becomes of the other batches' values and of the covariates' effects without one batch."""
    rows = np.flatnonzero(main.design.codes != index)
    entry: dict[str, Any] = {
        "batch": main.design.batches[index],
        "state": "done",
        "reason": "",
        "rows": len(rows),
    }
    part = main.dataset.select(rows)
    try:
        values = np.asarray(main.algorithm.harmonize(part, main.specification).values)
    except (HubError, np.linalg.LinAlgError) as error:
        reason = error.detail if isinstance(error, HubError) else SINGULAR
        return entry | {"state": "refused", "reason": reason, "covariates": []}
    moves = np.abs(values - main.after[rows]) / main.spread
    subjects = repeated_subjects(part, main.specification)
    codes = np.unique(main.design.codes[rows], return_inverse=True)[1]
    own = estimate_effects(values, codes, main.design.covariates[rows], subjects, with_batch=False)
    return entry | {
        "median_move_sd": float(np.nanmedian(moves)),
        "greatest_move_sd": float(np.nanmax(moves)),
        "covariates": [
            effect_move(name, row, own, whole, main.spread) for row, name in enumerate(main.names)
        ],
    }
