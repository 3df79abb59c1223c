"""The documented step that adds a batch to a fitted model without touching what was done to the others.

ComBat and its kin: the new batch is standardized by the model's grand mean, covariate effects and pooled variance; its
own shift and scale are shrunk by a prior over its own features, as `predict` of the R package ComBatFamily (git
0d3df16) does for an unknown batch. Equal to it within 1e-11 feature SD on the three reference cases; with a reference
batch and no covariates equal to fitting all batches together.

Limits: the covariates' effects are those of the batches fitted first; where the new batch's participants lie outside
their range the effect is extrapolated, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from harmonization_app.algorithms.base import (
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    require_no_stops,
    without_rows,
)
from harmonization_app.algorithms.design import as_numbers, merged_labels, pool_columns, select_features
from harmonization_app.algorithms.empirical_bayes import (
    BatchMoments,
    estimate_prior,
    shrink_mean_only,
    shrink_nonparametric,
    shrink_parametric,
)
from harmonization_app.algorithms.location_scale import LEAST_SCALE
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.spread import without_spread
from harmonization_app.algorithms.table import Labels
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed, stops

BY_OWN_PRIOR = (
    "The new batch is standardized by the frozen grand mean, covariate effects and pooled variance; its shift and "
    "scale are shrunk by a prior over its own features, as ComBatFamily's predict does. The other batches stay bit for "
    "bit."
)
# How a batch is added, or why it cannot be, by method.
EXPLANATIONS: Mapping[str, str] = {
    "combat": BY_OWN_PRIOR,
    "combat-spline": BY_OWN_PRIOR + " Knots stay where they are.",
    "combat-gam": BY_OWN_PRIOR + " The smooths stay as they are.",
    "combat-robust": BY_OWN_PRIOR + " Both are robust, as in its fit.",
    "dcombat": BY_OWN_PRIOR + " The new site does it on its own table.",
    "pairwise": "The new batch is fitted with the reference batch alone, as every other was; give the reference's "
    "fitted scans along. The other pairs stay bit for bit.",
    "z-score": "The new batch's own mean and SD are taken out; the common mean and SD stay frozen.",
    "global-scaling": "The new batch's mean profile is mapped on the frozen common profile.",
    "neurocombat": "The published package has no such step, and its mode for new scans is wrong by up to 0.9 SD.",
    "covbat": "The components and their common scores are those of all batches together; no published step brings a "
    "new batch to them. Amend the plan and fit a new version.",
    "longcombat": "A new scanner's effect is told from its subjects' own only in a mixed model of all scans. Amend the "
    "plan and fit a new version.",
    "nested": "A new level changes the values that every later step was fitted on. Amend the plan and fit a new "
    "version.",
    "travelling-subject": "A new scanner needs travelling subjects that connect it with the others, and they change "
    "all effects. Fit a new version with them.",
    "phantom-calibration": "A new scanner needs its own phantom measurements, which belong in the plan.",
    "control-features": "How far a new scanner's unwanted variation lies in the factors of the others is not known. "
    "Fit a new version.",
}
UNKNOWN = "No published or verified step adds a batch to a model of this method. Amend the plan and fit a new version."


class Extender(Protocol):
    """Return a model that also knows `batch`, estimated from `scans`, which passed the checks."""

    def __call__(self, model: Model, scans: Dataset, batch: str) -> Model: ...


def explain_new_batch(algorithm_id: str) -> str:
    """Return how a batch is added to a fitted model of this method, or why it cannot be."""
    return EXPLANATIONS.get(algorithm_id, UNKNOWN)


def add_batch(model: Model, dataset: Dataset, batch: str | None = None) -> Model:
    """Return a model that also corrects one new batch of `dataset`; all other numbers stay bit for bit.

    `batch` (a label after the plan's merges) picks the scans, so that a whole table may be given; without it the scans
    must be of one new batch (and, for pairwise, of the reference). Raises HarmonizationRefused where the method has no
    such step, the scans are of no single new batch or too few, a feature lacks scans, a value is infinite, or a
    covariate is at fault.
    """
    extend = _extenders().get(model.algorithm)
    if extend is None:
        raise HarmonizationRefused(
            [
                Finding(
                    "cannot_add_batch", "stop", f"No batch can be added. {explain_new_batch(model.algorithm)}"
                )
            ]
        )
    dataset = select_features(dataset, model.features)
    labels = merged_labels(dataset, model.specification)
    reference = model.specification.reference_batch if model.algorithm == "pairwise" else None
    new = sorted({str(label) for label in labels} - {reference}) if batch is None else [batch]
    if message := _why_none(model, new, labels):
        raise HarmonizationRefused([Finding("no_single_new_batch", "stop", message, batches=tuple(new))])
    scans = dataset.select([row for row, label in enumerate(labels) if label == new[0]])
    findings = _check(model, scans, new[0])
    require_no_stops(findings)
    given = dataset.select([row for row, label in enumerate(labels) if label in (new[0], reference)])
    extended = extend(model, given, new[0])
    entry = {
        "batch": new[0],
        "scans": len(scans.rows),
        "findings": without_rows(findings),
    }
    return replace(
        extended, facts={**extended.facts, "added_batches": [*model.facts.get("added_batches", []), entry]}
    )


def _why_none(model: Model, new: list[str], labels: Sequence[str | None]) -> str:
    """Return why the scans are not of one batch that the model does not know, "" where they are."""
    if None in labels:
        return (
            "Scans without a batch label cannot be told from those of the new batch. Label or leave them out."
        )
    if len(new) != 1:
        return f"The scans must be of one batch that the model does not know; they are of {listed(new)}."
    if new[0] in model.batches:
        return f"The model knows batch {new[0]} already: apply it to these scans, no batch is to be added."
    if new[0] not in labels:
        there = listed(sorted({str(label) for label in labels}))
        return f"No scan is of batch {new[0]}; the scans are of {there}."
    return ""


def _extenders() -> dict[str, Extender]:
    """Return the step of each method that has one; imported late, for the methods' own modules know this one."""
    from harmonization_app.algorithms import baselines, combat_robust, pairwise

    family = dict.fromkeys(("combat", "combat-spline", "combat-gam", "dcombat"), _extend_location_scale)
    return {
        **family,
        "combat-robust": combat_robust.extend,
        "pairwise": pairwise.extend,
        "z-score": baselines.extend_z_score,
        "global-scaling": baselines.extend_scaling,
    }


def _check(model: Model, scans: Dataset, batch: str) -> list[Finding]:
    """Return what the gate of the plan says on a batch of this size, its values and its covariates."""
    findings = _check_size(model, len(scans.rows), batch)
    if stops(findings):
        return findings
    # Everything else is what any scan to correct must meet, but that its batch is known.
    known = replace(model, batches=(*model.batches, batch))
    missing = _takes_missing(model) and model.specification.missing_values == "allow"
    findings += gate.check_apply(known, scans, missing_values=missing)
    if not stops(findings):
        findings += without_spread(scans)
    if stops(findings):
        return findings
    return findings + _check_overlap(model, scans, batch) + _check_features(model, scans, batch)


def _check_size(model: Model, scans: int, batch: str) -> list[Finding]:
    specification, policy = model.specification, model.specification.batch_size
    if scans < specification.minimum_scans:
        message = f"Batch {batch} has {scans} scans; the plan asks for {specification.minimum_scans}."
        return [Finding("batch_too_small", "stop", message, batches=(batch,))]
    if not specification.mean_only and scans < policy.mean_only_below:
        message = (
            f"Batch {batch} has {scans} scans; below {policy.mean_only_below} the plan takes its scale for unknown. "
            "Wait for more."
        )
        return [Finding("batch_too_small_for_scale", "stop", message, batches=(batch,))]
    if scans < policy.warn_below:
        message = f"Batch {batch} has {scans} scans, fewer than {policy.warn_below}; part of its effect will remain."
        return [Finding("small_batch", "warn", message, batches=(batch,))]
    return []


def _check_overlap(model: Model, scans: Dataset, batch: str) -> list[Finding]:
    """Return a stop for each covariate of which too little lies in the range that the model was fitted on."""
    findings = []
    least = model.specification.overlap.minimum_overlap
    for name, (low, high) in model.coding.ranges.items():
        values = as_numbers(scans.covariates[name])
        share = float(np.mean((values >= low) & (values <= high)))
        if share < least:
            message = (
                f"{share:.0%} of {name} in batch {batch} lies in the range the model was fitted on ({low:g} to "
                f"{high:g}); the plan asks for {least:.0%}. Its effect there is not known."
            )
            findings.append(
                Finding("no_covariate_overlap", "stop", message, columns=(name,), batches=(batch,))
            )
    return findings


def _check_features(model: Model, scans: Dataset, batch: str) -> list[Finding]:
    """Return stops for features that the model corrects and the batch does not show: too few scans, or one value."""
    kept = model.corrected
    seen = ~np.isnan(scans.values)
    short = kept & (seen.sum(axis=0) < model.specification.minimum_scans)
    lowest = np.where(seen, scans.values, np.inf).min(axis=0)
    highest = np.where(seen, scans.values, -np.inf).max(axis=0)
    flat = kept & ~short & (lowest == highest) & (len(scans.rows) > 1)
    names = np.array(scans.features)
    findings = []
    if short.any():
        columns = tuple(names[short].tolist())
        message = (
            f"{listed(columns)} has fewer than {model.specification.minimum_scans} observed scans in batch {batch}; "
            "the other batches are corrected for it, so it cannot pass through here. Complete it, or fit a new version."
        )
        findings.append(Finding("feature_lacks_batch", "stop", message, columns=columns, batches=(batch,)))
    if flat.any():
        columns = tuple(names[flat].tolist())
        message = (
            f"{listed(columns)} has one value in all scans of the new batch. Ask the site whether it failed."
        )
        findings.append(Finding("constant_in_batch", "stop", message, columns=columns, batches=(batch,)))
    return findings


def _takes_missing(model: Model) -> bool:
    from harmonization_app.algorithms.registry import get_algorithm

    return get_algorithm(model.algorithm).capabilities.missing_values


def _extend_location_scale(model: Model, scans: Dataset, batch: str) -> Model:
    from harmonization_app.algorithms.combat import Combat
    from harmonization_app.algorithms.registry import get_algorithm

    algorithm = get_algorithm(model.algorithm)
    assert isinstance(algorithm, Combat)
    arrays = model.arrays
    covariates = (algorithm.covariate_columns(model, scans) - arrays["centre"]) / arrays["scale"]
    fitted = arrays["grand_mean"] + covariates @ arrays["coefficients"]
    rows, priors, steps = _estimates(
        model, (scans.values - fitted) / np.sqrt(arrays["pooled_variance"]), batch
    )
    return model.with_batch(batch, len(scans.rows), rows, priors, steps)


def _estimates(
    model: Model, standard: FloatArray, batch: str
) -> tuple[dict[str, FloatArray], FloatArray, dict[str, int]]:
    """Return the new batch's rows of the model's arrays, its priors [pools x 4] and its steps by pool."""
    specification, usable = model.specification, model.corrected
    seen = ~np.isnan(standard)
    counts = seen.sum(axis=0).astype(np.float64)
    shift = np.where(seen, standard, 0.0).sum(axis=0) / np.maximum(counts, 1.0)
    squares = (np.where(seen, standard - shift, 0.0) ** 2).sum(axis=0)
    scale = np.ones_like(shift) if specification.mean_only else squares / np.maximum(counts - 1.0, 1.0)
    shift, scale = np.where(usable, shift, 0.0), np.where(usable & (scale > LEAST_SCALE), scale, 1.0)
    own_shift, own_scale = shift.copy(), scale.copy()
    priors, steps = [], {}
    for pool, columns in pool_columns(Labels(model.features, (), ()), specification, usable).items():
        priors.append([np.nan] * 4)
        if not specification.eb or not columns.size:
            continue
        moments = BatchMoments(shift[columns], scale[columns], squares[columns], counts[columns])
        prior = estimate_prior(moments.shift, moments.scale, specification.mean_only)
        priors[-1] = [prior.mean, prior.variance, prior.shape, prior.rate]
        taken = 1
        if not specification.parametric:
            own_shift[columns], own_scale[columns] = shrink_nonparametric(moments)
        elif specification.mean_only:
            own_shift[columns] = shrink_mean_only(moments, prior)
        else:
            own_shift[columns], own_scale[columns], taken = shrink_parametric(batch, moments, prior)
        steps[pool] = taken
    if specification.mean_only:
        own_scale[:] = 1.0
    rows = {
        "gamma_hat": shift,
        "delta_hat": scale,
        "gamma_star": own_shift,
        "delta_star": own_scale,
        "counts": counts,
    }
    return rows, np.array(priors), steps
