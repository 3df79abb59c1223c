"""Batch and covariate effects before and after a harmonization, and what single values went through.

What is computed on the data the method was fitted on is called in-sample and proves little; `held_out` is the
evidence. Keys of the JSON (`EffectsReport.to_json`), size bounded whatever the number of features:

scans, batches       number of scans; [{batch, scans, subjects, levels: {covariate: {level: scans}}}]
repeated             None, or {subjects, scans, source}: scans repeat subjects, errors are clustered by subject
headline             {sentence, evidence: [{kind, held_out, label, figure, before, after, expected, sentence}]}; kind is
                     repeated_split, held_out_classification, leave_one_batch_out, travelling_subjects or in_sample;
                     `expected` is the figure where there is no batch effect, None where it is not known
in_sample            {note, noise_floor, before, after}; noise_floor is the median partial eta squared to expect of
                     batches that do not differ; each stage has
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
                     noise_floor, noise_upper, subjects_in_both, splits: [{fitted_after, held_out_before,
                     held_out_after}], covariance: {evaluable, reason, before, after, expected, p_before, p_after},
                     classification: {before, after}}; covariance, Bhattacharyya distance and classification take one
                     scan of each subject, where scans repeat them
covariates           [{feature, covariate, before, after, batch_adjusted, preserved}] of the listed features, an
                     estimate being {value, error, low, high, t}
covariate_effects    {errors, by_covariate: [{covariate, unit, features, stages: {stage: {median, lowest, highest,
                     median_error, significant}}, agreement}], columns}; medians and errors are in SD of the feature
                     before (`unit`), since features differ in units; stages are before, after and
                     before_batch_adjusted (batch in the model); agreement is {features, covered, same_sign,
                     median_difference_in_errors, median_width_ratio}, `covered` the share of features whose interval
                     after holds the batch-adjusted estimate; columns is {feature, covariates: {covariate: {stage:
                     {value, error, low, high}}}} up to 2,000 features
group_contrast       [{covariate, level, reference, features, stages: {stage: {median, lowest, highest, significant}},
                     agreement, listed: [{feature, before, after, before_batch_adjusted}]}], in residual SD
movers               {quantiles_sd, mean_shift_by_batch_sd, largest, turned_non_positive, cells_turned_non_positive,
                     distribution: {edges_sd, cells} of drawn features, implausible: [{code, message, cells, features,
                     listed}]}; a mover is {row, batch, feature, before, after, shift_sd}
classification       {before, after}: {evaluable, reason, accuracy, chance, chance_95, p, scans, features, permutations}
stability            {left_out: [{batch, median_move_sd, greatest_move_sd, expected_move_sd, reason}], reason, features,
                     spike_in: {evaluable, reason, planted_sd, recovered, lowest, highest}}
within_subject       None, or {evaluable, reason, subjects, pairs_same_batch, pairs_other_batch, rank_order,
                     excess_before, excess_after, time, by_batch: [{batch, pairs, change_before_sd, change_after_sd,
                     rank_order}]}; changes are per unit of time where `time` is named
travelling_subjects  None, or {evaluable, reason, subjects, scans, batches, within, held_out, note, before, after,
                     expected_ratio, upper_ratio, pairs: [{first, second, subjects, bias_before, bias_after,
                     limits_before, limits_after}]}; before and after are {icc, within_subject_cv_percent,
                     repeatability_sd, batch_ratio}, medians over features; expected_ratio is the batch_ratio of batches
                     that do not differ, upper_ratio what these reach at most in 19 of 20 tables
sensitivity          added by the run: one entry per analysis of the plan, see sensitivity.py
limits               sentences: what this method cannot do, when not to use it
flags                {code: {features, listed, meaning}}: features that the method treated otherwise
facts                the method's own figures of the fit (plain numbers and texts)
scope                {features, listed, columns_up_to, parts: {part: {features, of, scans, chosen}}}: what was computed
                     on which of the features, and how those were chosen
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, IntArray, Result
from harmonization_app.algorithms.design import Design, build_design, feature_positions, select_features
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.classification import Classification, classify_batches
from harmonization_app.diagnostics.covariate_effects import (
    CovariateEffect,
    CovariateEffects,
    covariate_effects,
)
from harmonization_app.diagnostics.gate_counts import level_counts, subject_counts
from harmonization_app.diagnostics.group_contrast import group_contrasts
from harmonization_app.diagnostics.headline import headline
from harmonization_app.diagnostics.heldout import HeldOut, evaluate_held_out
from harmonization_app.diagnostics.method_notes import flags_of, limits_of, plain_facts
from harmonization_app.diagnostics.movers import Movers, find_movers
from harmonization_app.diagnostics.projection import usable_columns
from harmonization_app.diagnostics.repeatability import TravellingSubjects, measure_travelling
from harmonization_app.diagnostics.scope import (
    COLUMNS_UP_TO,
    RANK_CELLS,
    REFIT_CELLS,
    Part,
    draw,
    draw_features,
    narrowed,
    part_of,
)
from harmonization_app.diagnostics.stability import Stability, measure_stability
from harmonization_app.diagnostics.stages import Drawn, Stage, in_sample_floor, listed_features, measure_stage
from harmonization_app.diagnostics.subjects import Subjects, repeated_subjects
from harmonization_app.diagnostics.within_subject import WithinSubject, measure_within_subject

IN_SAMPLE_NOTE = "Tests on the fitted data look perfect whatever a method does; read the held-out figures."
REPEATED_NOTE = " Scans repeat subjects and the tests take them as independent: read the effect sizes, not p."
# Mixed models are refitted on few features: each takes as long as hundreds of least squares.
MIXED_MODEL_FEATURES = 8


@dataclass(frozen=True, slots=True, eq=False)
class EffectsReport:
    """Before and after, in-sample; the covariates' effects; the movers; and the held-out evidence."""

    scans: int
    batches: tuple[Mapping[str, Any], ...]
    repeated: Subjects | None
    features: int
    listed: IntArray
    noise_floor: float
    before: Stage
    after: Stage
    effects: CovariateEffects
    contrasts: tuple[Mapping[str, Any], ...]
    movers: Movers
    held_out: HeldOut
    classified_before: Classification
    classified_after: Classification
    stability: Stability
    within_subject: WithinSubject | None
    travelling: TravellingSubjects | None
    limits: tuple[str, ...]
    flags: Mapping[str, Any]
    facts: Mapping[str, Any]
    parts: Mapping[str, Part]

    @property
    def covariates(self) -> tuple[CovariateEffect, ...]:
        """The effects on the listed features one by one."""
        return self.effects.listed(self.listed)

    def to_json(self) -> dict[str, Any]:
        """Return the document described above."""
        evidence = headline(
            self.held_out, self.stability, self.travelling, self.before.summary, self.after.summary
        )
        return {
            "scans": self.scans,
            "batches": [dict(item) for item in self.batches],
            "repeated": _repeated(self.repeated),
            "headline": evidence,
            "in_sample": {
                "note": IN_SAMPLE_NOTE + (REPEATED_NOTE if self.repeated else ""),
                "noise_floor": self.noise_floor,
                "before": self.before.to_json(self.listed),
                "after": self.after.to_json(self.listed),
            },
            "held_out": self.held_out.to_json(),
            "covariates": [effect.to_json() for effect in self.covariates],
            "covariate_effects": self.effects.to_json(),
            "group_contrast": [dict(item) for item in self.contrasts],
            "movers": self.movers.to_json(),
            "classification": {
                "before": self.classified_before.to_json(),
                "after": self.classified_after.to_json(),
            },
            "stability": self.stability.to_json(),
            "within_subject": self.within_subject.to_json() if self.within_subject else None,
            "travelling_subjects": self.travelling.to_json() if self.travelling else None,
            "limits": list(self.limits),
            "flags": dict(self.flags),
            "facts": dict(self.facts),
            "scope": {
                "features": self.features,
                "listed": len(self.listed),
                "columns_up_to": COLUMNS_UP_TO,
                "parts": {name: part.to_json() for name, part in self.parts.items()},
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Small:
    """The drawn features that harmonizations are repeated on, with the plan narrowed to them and the values after."""

    dataset: Dataset
    specification: Specification
    after: FloatArray


def compare(
    algorithm: Algorithm, dataset: Dataset, specification: Specification, result: Result
) -> EffectsReport:
    """Return the effects on `dataset` before and in `result` after.

    `dataset` is the one the result was computed from; it passed the gate, so labels and covariates are whole.
    """
    dataset = select_features(dataset, result.model.features)
    design, after, seed = build_design(dataset, specification), np.asarray(result.values), specification.seed
    subjects = repeated_subjects(dataset, specification)
    drawn = _drawn(dataset.values, after, subjects, seed)
    small = _small(algorithm, dataset, specification, after)
    reference = specification.reference_batch

    def classified(values: FloatArray) -> Classification:
        own = values[np.ix_(drawn.scans, drawn.usable)]
        return classify_batches(own, design.codes[drawn.scans], design.covariates[drawn.scans], seed)

    before_stage = measure_stage(dataset.values, dataset, design, drawn, reference, seed)
    listed = listed_features(before_stage.tests)
    effects = covariate_effects(
        dataset.values,
        after,
        design.codes,
        design.covariates,
        design.coding.column_names,
        dataset.features,
        subjects,
    )
    return EffectsReport(
        scans=len(dataset.rows),
        batches=_batch_table(dataset, design, specification),
        repeated=subjects,
        features=len(dataset.features),
        listed=listed,
        noise_floor=in_sample_floor(after, design, drawn, subjects),
        before=before_stage,
        after=measure_stage(after, dataset, design, drawn, reference, seed),
        effects=effects,
        contrasts=tuple(group_contrasts(effects, design.coding, listed)),
        movers=find_movers(dataset, after, seed),
        held_out=evaluate_held_out(algorithm, small.dataset, small.specification),
        classified_before=classified(dataset.values),
        classified_after=classified(after),
        stability=measure_stability(algorithm, small.dataset, small.specification),
        within_subject=measure_within_subject(small.dataset, small.specification, small.after),
        travelling=measure_travelling(algorithm, small.dataset, small.specification, small.after),
        limits=limits_of(algorithm, result),
        flags=flags_of(result),
        facts=plain_facts(result),
        parts=_parts(dataset, drawn, small, seed),
    )


def _drawn(before: FloatArray, after: FloatArray, subjects: Subjects | None, seed: int) -> Drawn:
    features = draw_features(before.shape, RANK_CELLS, seed)
    scans = np.arange(len(before)) if subjects is None else subjects.one_scan_each(seed)
    return Drawn(features, features[usable_columns(before[:, features], after[:, features])], scans)


def _small(algorithm: Algorithm, dataset: Dataset, specification: Specification, after: FloatArray) -> _Small:
    drawn = draw_features(dataset.values.shape, REFIT_CELLS, specification.seed)
    if algorithm.capabilities.longitudinal:
        drawn = drawn[draw(len(drawn), MIXED_MODEL_FEATURES, specification.seed)]
    own, narrow = narrowed(dataset, specification, drawn)
    return _Small(own, narrow, after[:, feature_positions(dataset, own.features)])


def _batch_table(
    dataset: Dataset, design: Design, specification: Specification
) -> tuple[Mapping[str, Any], ...]:
    subjects = subject_counts(dataset, design, specification)
    levels = level_counts(dataset, design)
    return tuple(
        {
            "batch": batch,
            "scans": int(design.batch_sizes[code]),
            "subjects": None if subjects is None else int(subjects[code]),
            "levels": {
                name: {level: int(counts[code]) for level, counts in by_level.items()}
                for name, by_level in levels.items()
            },
        }
        for code, batch in enumerate(design.batches)
    )


def _parts(dataset: Dataset, drawn: Drawn, small: _Small, seed: int) -> dict[str, Part]:
    shape = dataset.values.shape
    whole = Part(shape[1], shape[1], shape[0])
    ranked = part_of(drawn.features, shape, seed)
    refitted = part_of(range(len(small.dataset.features)), shape, seed)
    chosen = f"complete and varying, of {ranked.chosen}"
    multivariate = Part(len(drawn.usable), shape[1], len(drawn.scans), chosen)
    return {
        "partial_f": whole,
        "rank_and_scale_tests": ranked,
        "covariate_effects": whole,
        "multivariate": multivariate,
        "movers": whole,
        "movers_distribution": ranked,
        "held_out": refitted,
        "stability": refitted,
        "within_subject": refitted,
        "travelling_subjects": refitted,
    }


def _repeated(subjects: Subjects | None) -> dict[str, Any] | None:
    if subjects is None:
        return None
    return {"subjects": subjects.count, "scans": len(subjects.codes), "source": subjects.source}
