"""Batch and covariate effects before and after a harmonization, and what single values went through.

What is computed on the data the method was fitted on is called in-sample and proves little; `held_out` is the
evidence. Keys of the JSON (`EffectsReport.to_json`), size bounded whatever the number of features:

scans, batches       number of scans; [{batch, scans, subjects, levels: {covariate: {level: scans}}}]
repeated             None, or {subjects, scans, source}: scans repeat subjects, errors are clustered by subject
headline             {sentence, evidence: [{kind, held_out, label, figure, before, after, expected, sentence}]}; kind is
                     repeated_split, held_out_classification, leave_one_batch_out, travelling_subjects or in_sample;
                     `expected` is the figure where there is no batch effect, None where it is not known
in_sample            {note, before, after}; each stage has
  tests                [{feature, partial_f, p, q, partial_eta_squared, variance_explained, kruskal_p, kruskal_q,
                       kruskal_epsilon_squared, levene_p, levene_q, levene_eta_squared}] of the listed features
  columns              the same as arrays by figure, beside `feature`, all features up to 2,000; None beyond
  distributions        {figure: {"0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"}} over all features tested
  summary              {tested, mean_effect, rank_effect, scale_effect, median_partial_eta_squared,
                       median_variance_explained}; counts with q below 0.05, None where not tested
  projection           None, or {rows, batches, scores, explained, between_batches, features}
  covariance           {evaluable, reason, distance, expected, expected_95, p, pairs: [{first, second, distance,
                       expected}], features, permutations}: Frobenius distances of shrunk covariances, see covariance.py
  bhattacharyya        {against, by_batch: {batch: median over features}, median, expected}
held_out             {evaluable, reason, seed, split_by, features, fitted_after, held_out_before, held_out_after,
                     noise_floor, splits: [{fitted_after, held_out_before, held_out_after}], covariance: {evaluable,
                     reason, before, after, expected}, classification: {before, after}}
covariates           [{feature, covariate, before, after, batch_adjusted, preserved}] of the listed features, an
                     estimate being {value, error, low, high, t}
covariate_effects    {errors, by_covariate: [{covariate, features, stages: {stage: {median, lowest, highest,
                     median_error, significant}}, agreement}], columns}; stages are before, after and
                     before_batch_adjusted (batch in the model); agreement is {features, covered, same_sign,
                     median_difference_in_errors, median_width_ratio}, `covered` the share of features whose interval
                     after holds the batch-adjusted estimate; columns is {feature, covariates: {covariate: {stage:
                     {value, error, low, high}}}} up to 2,000 features
group_contrast       [{covariate, level, reference, features, stages: {stage: {median, lowest, highest, significant}},
                     agreement, listed: [{feature, before, after, before_batch_adjusted}]}], in residual SD
movers               {quantiles_sd, mean_shift_by_batch_sd, largest, turned_non_positive, cells_turned_non_positive,
                     distribution: {edges_sd, cells}, implausible: [{code, message, cells, features, listed}]}; a mover
                     is {row, batch, feature, before, after, shift_sd}
classification       {before, after}: {evaluable, reason, accuracy, chance, chance_95, p, scans, features, permutations}
stability            {left_out: [{batch, median_move_sd, greatest_move_sd, expected_move_sd, reason}], reason, features,
                     spike_in: {evaluable, reason, planted_sd, recovered, lowest, highest}}
within_subject       None, or {evaluable, reason, subjects, pairs_same_batch, pairs_other_batch, rank_order,
                     excess_before, excess_after, time, by_batch: [{batch, pairs, change_before_sd, change_after_sd,
                     rank_order}]}; changes are per unit of time where `time` is named
travelling_subjects  None, or {evaluable, reason, subjects, scans, batches, within, held_out, note, before, after,
                     pairs: [{first, second, subjects, bias_before, bias_after, limits_before, limits_after}]}; before
                     and after are {icc, within_subject_cv_percent, repeatability_sd, batch_ratio}, medians over
                     features; batch_ratio is 1 where batches do not differ
sensitivity          added by the run: one entry per analysis of the plan, see sensitivity.py
limits               sentences: what this method cannot do, when not to use it
flags                {code: {features, listed, meaning}}: features that the method treated otherwise
facts                the method's own figures of the fit (plain numbers and texts)
scope                {features, listed, columns_up_to, parts: {part: {features, of, scans, chosen}}}: what was computed
                     on which of the features, and how those were chosen
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
from harmonization_app.diagnostics.covariate_effects import (
    CovariateEffect,
    CovariateEffects,
    covariate_effects,
)
from harmonization_app.diagnostics.heldout import HeldOut, evaluate_held_out
from harmonization_app.diagnostics.movers import Movers, find_movers
from harmonization_app.diagnostics.projection import Projection, project, usable_columns
from harmonization_app.diagnostics.scope import LISTED
from harmonization_app.diagnostics.stability import Stability, measure_stability
from harmonization_app.diagnostics.subjects import repeated_subjects
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
    effects: CovariateEffects
    movers: Movers
    held_out: HeldOut
    classified_before: Classification
    classified_after: Classification
    stability: Stability
    within_subject: WithinSubject | None

    @property
    def covariates(self) -> tuple[CovariateEffect, ...]:
        """The effects on the listed features one by one."""
        return self.effects.listed(range(min(LISTED, len(self.effects.features))))

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
            "covariate_effects": self.effects.to_json(),
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
        effects=covariate_effects(
            dataset.values,
            result.values,
            design.codes,
            design.covariates,
            design.coding.column_names,
            dataset.features,
            repeated_subjects(dataset, specification),
        ),
        movers=find_movers(dataset, np.asarray(result.values)),
        held_out=evaluate_held_out(algorithm, dataset, specification),
        classified_before=classified(dataset.values),
        classified_after=classified(result.values),
        stability=measure_stability(algorithm, dataset, specification),
        within_subject=measure_within_subject(dataset, specification, np.asarray(result.values)),
    )
