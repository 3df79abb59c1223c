"""Batch and covariate effects before and after a harmonization, and what single values went through.

What is computed on the data the method was fitted on is called in-sample and proves little; `held_out` is the
evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, Result
from harmonization_app.algorithms.design import build_design, select_features
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.batch_tests import (
    BatchSummary,
    BatchTest,
    measure_batch_effects,
    summarize,
)
from harmonization_app.diagnostics.classification import Classification, classify_batches
from harmonization_app.diagnostics.covariate_effects import CovariateEffect, covariate_effects
from harmonization_app.diagnostics.heldout import HeldOut, evaluate_held_out
from harmonization_app.diagnostics.movers import Movers, find_movers
from harmonization_app.diagnostics.projection import Projection, project, usable_columns
from harmonization_app.diagnostics.stability import Stability, measure_stability
from harmonization_app.diagnostics.within_subject import WithinSubject, measure_within_subject

IN_SAMPLE_NOTE = "Tests on the fitted data look perfect whatever a method does; read the held-out figures."


@dataclass(frozen=True, slots=True)
class Stage:
    """Batch effects on one state of the values, and their projection."""

    tests: tuple[BatchTest, ...]
    summary: BatchSummary
    projection: Projection | None

    def to_json(self) -> dict[str, Any]:
        return {
            "tests": [test.to_json() for test in self.tests],
            "summary": self.summary.to_json(),
            "projection": self.projection.to_json() if self.projection else None,
        }


@dataclass(frozen=True, slots=True)
class EffectsReport:
    """Before and after, in-sample; the covariates' effects; the movers; and the held-out evidence."""

    scans: int
    batches: tuple[tuple[str, int], ...]
    before: Stage
    after: Stage
    covariates: tuple[CovariateEffect, ...]
    movers: Movers
    held_out: HeldOut
    classified_before: Classification
    classified_after: Classification
    stability: Stability
    within_subject: WithinSubject | None

    def to_json(self) -> dict[str, Any]:
        return {
            "scans": self.scans,
            "batches": [{"batch": batch, "scans": size} for batch, size in self.batches],
            "in_sample": {
                "note": IN_SAMPLE_NOTE,
                "before": self.before.to_json(),
                "after": self.after.to_json(),
            },
            "covariates": [effect.to_json() for effect in self.covariates],
            "movers": self.movers.to_json(),
            "held_out": self.held_out.to_json(),
            "classification": {
                "before": self.classified_before.to_json(),
                "after": self.classified_after.to_json(),
            },
            "stability": self.stability.to_json(),
            "within_subject": self.within_subject.to_json() if self.within_subject else None,
        }


def compare(
    algorithm: Algorithm, dataset: Dataset, specification: Specification, result: Result
) -> EffectsReport:
    """Return the effects on `dataset` before and in `result` after.

    `dataset` is the one the result was computed from; it passed the gate, so labels and covariates are whole.
    """
    dataset = select_features(dataset, result.model.features)
    design = build_design(dataset, specification)
    columns = usable_columns(dataset.values, result.values)

    def stage(values: FloatArray) -> Stage:
        tests = measure_batch_effects(values, design.codes, design.covariates, dataset.features)
        projection = project(values, design.codes, design.batches, dataset.rows, columns)
        return Stage(tests, summarize(tests), projection)

    def classified(values: FloatArray) -> Classification:
        return classify_batches(values[:, columns], design.codes, design.covariates, specification.seed)

    return EffectsReport(
        scans=len(dataset.rows),
        batches=tuple(zip(design.batches, (int(size) for size in design.batch_sizes), strict=True)),
        before=stage(dataset.values),
        after=stage(result.values),
        covariates=covariate_effects(
            dataset.values,
            result.values,
            design.codes,
            design.covariates,
            design.coding.column_names,
            dataset.features,
        ),
        movers=find_movers(dataset, np.asarray(result.values)),
        held_out=evaluate_held_out(algorithm, dataset, specification),
        classified_before=classified(dataset.values),
        classified_after=classified(result.values),
        stability=measure_stability(algorithm, dataset, specification),
        within_subject=measure_within_subject(dataset, specification, np.asarray(result.values)),
    )
