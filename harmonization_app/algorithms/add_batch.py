"""The documented step that adds a batch to a fitted ComBat model without touching what was done to the others.

The new batch is standardized by the model's grand mean, covariate effects and pooled variance; its own shift and
scale are shrunk by a prior over its own features, as `predict` of the R package ComBatFamily (git 0d3df16) does for an
unknown batch. Equal to it within 1e-11 feature SD on the three reference cases.

Limits: the covariates' effects are those of the batches fitted first; where the new batch's participants lie outside
their range the effect is extrapolated, and a warning says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import code_covariates, merged_labels, select_features
from harmonization_app.algorithms.empirical_bayes import (
    BatchMoments,
    estimate_prior,
    shrink_mean_only,
    shrink_nonparametric,
    shrink_parametric,
)
from harmonization_app.algorithms.location_scale import pool_columns
from harmonization_app.algorithms.model import Model
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed, stops


def add_batch(model: Model, dataset: Dataset) -> Model:
    """Return a model that also corrects the one batch of `dataset`; all other numbers stay bit for bit.

    Raises HarmonizationRefused where the model is not ComBat's or has a reference batch, the scans are of no single
    new batch or fewer than the plan's minimum, a value is missing or infinite, or a covariate is at fault.
    """
    dataset = select_features(dataset, model.features)
    labels = merged_labels(dataset, model.specification)
    findings = _check(model, dataset, labels)
    if stops(findings):
        raise HarmonizationRefused(findings)
    arrays = model.arrays
    covariates = (code_covariates(dataset, model.coding) - arrays["centre"]) / arrays["scale"]
    fitted = arrays["grand_mean"] + covariates @ arrays["coefficients"]
    standard = (dataset.values - fitted) / np.sqrt(arrays["pooled_variance"])
    own = _estimates(model, standard, str(labels[0]))
    iterations = {pool: {**steps, **own["steps"].get(pool, {})} for pool, steps in model.iterations.items()}
    return replace(
        model,
        batches=(*model.batches, str(labels[0])),
        batch_sizes=(*model.batch_sizes, len(dataset.rows)),
        arrays=_appended(arrays, own["rows"], own["priors"]),
        iterations=iterations,
        facts={
            **model.facts,
            "added_batches": [
                *model.facts.get("added_batches", []),
                {
                    "batch": str(labels[0]),
                    "scans": len(dataset.rows),
                    "findings": [finding.to_json() for finding in findings],
                },
            ],
        },
    )


def _check(model: Model, dataset: Dataset, labels: list[str | None]) -> list[Finding]:
    if model.algorithm != Combat.id or model.specification.reference_batch is not None:
        message = "A batch can be added to a ComBat model without a reference batch only; fit a new version."
        return [Finding("cannot_add_batch", "stop", message)]
    new = sorted({str(label) for label in labels})
    if len(new) != 1 or labels[0] is None or new[0] in model.batches:
        message = f"The scans must be of one batch that the model does not know; they are of {listed(new)}."
        return [Finding("no_single_new_batch", "stop", message, batches=tuple(new))]
    least = model.specification.minimum_scans
    if len(labels) < least:
        message = f"Batch {new[0]} has {len(labels)} scans; the plan asks for {least}."
        return [Finding("batch_too_small", "stop", message, batches=tuple(new))]
    # Everything else is what any scan to correct must meet, but that its batch is known.
    known = replace(model, batches=(*model.batches, new[0]))
    findings = list(gate.check_apply(known, dataset, missing_values=False))
    left_out = {name for code in ("constant", "unusable") for name in model.flags.get(code, ())}
    flat = tuple(
        name
        for name, constant in zip(dataset.features, np.ptp(dataset.values, axis=0) == 0, strict=True)
        if constant and name not in left_out
    )
    if flat and not stops(findings):
        message = (
            f"{listed(flat)} has one value in all scans of the new batch. Ask the site whether it failed."
        )
        findings.append(Finding("constant_in_batch", "stop", message, columns=flat))
    return findings


def _estimates(model: Model, standard: FloatArray, batch: str) -> dict[str, Any]:
    """Return the new batch's rows of the model's arrays, its priors by pool and its steps."""
    specification, count = model.specification, len(standard)
    shift, scale = standard.mean(axis=0), np.ones(standard.shape[1])
    squares = ((standard - shift) ** 2).sum(axis=0)
    if not specification.mean_only:
        scale = squares / max(count - 1, 1)
    left_out = {name for code in ("constant", "unusable") for name in model.flags.get(code, ())}
    usable = np.array([name not in left_out for name in model.features])
    shift, scale = np.where(usable, shift, 0.0), np.where(usable, scale, 1.0)
    own_shift, own_scale = shift.copy(), scale.copy()
    table = Dataset(np.empty((0, len(model.features))), model.features, (), (), {}, model.units)
    priors, steps = [], {}
    for pool, columns in pool_columns(table, specification, usable).items():
        priors.append([np.nan] * 4)
        if not specification.eb or not columns.size:
            continue
        counts = np.full(columns.size, float(count))
        moments = BatchMoments(shift[columns], scale[columns], squares[columns], counts)
        prior = estimate_prior(moments.shift, moments.scale, specification.mean_only)
        priors[-1] = [prior.mean, prior.variance, prior.shape, prior.rate]
        taken = 1
        if not specification.parametric:
            own_shift[columns], own_scale[columns] = shrink_nonparametric(moments)
        elif specification.mean_only:
            own_shift[columns] = shrink_mean_only(moments, prior)
        else:
            own_shift[columns], own_scale[columns], taken = shrink_parametric(batch, moments, prior)
        steps[pool] = {batch: taken}
    if specification.mean_only:
        own_scale[:] = 1.0
    rows = {
        "gamma_hat": shift,
        "delta_hat": scale,
        "gamma_star": own_shift,
        "delta_star": own_scale,
        "counts": np.full(len(shift), float(count)),
    }
    return {"rows": rows, "priors": np.array(priors), "steps": steps}


def _appended(arrays: Any, rows: dict[str, FloatArray], priors: FloatArray) -> dict[str, npt.NDArray[Any]]:
    extended = {name: np.vstack([arrays[name], row]) for name, row in rows.items()}
    extended["priors"] = np.concatenate([arrays["priors"], priors[:, None, :]], axis=1)
    return {**arrays, **extended}
