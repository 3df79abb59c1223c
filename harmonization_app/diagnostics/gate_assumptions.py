"""Checks of what the ComBat family assumes: alike covariates, alike slopes, no batch that decides, priors that fit.

One pass over at most 500 complete features gives, by batch, the covariates' cross products with each other and with
the values; most of the rest follows from those. It warns and never stops: the plan decides. Sources: Jodoin et al.,
Sci Rep 15:41508 (2025) (alike slopes); Johnson, Li, Rabinovic, Biostatistics 8:118 (2007) (priors).
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.gate_products import BatchProducts, batch_products, sample_columns
from harmonization_app.diagnostics.gate_residuals import check_residuals
from harmonization_app.diagnostics.gate_slopes import check_slopes
from harmonization_app.diagnostics.subjects import Subjects, repeated_subjects
from harmonization_app.diagnostics.wording import listed

# Kolmogorov-Smirnov: a difference that matters and is not chance.
KS_DISTANCE, KS_P = 0.4, 0.001
# A batch without which a covariate's effect moves by more than this many of its standard errors, in the median feature.
INFLUENCE_ERRORS = 2.0
FEWEST_FOR_PRIORS = 30
# Critical distance at about 0.1 % for n features is this over the root of n.
PRIOR_CRITICAL = 1.95
# A feature of which batch and covariates leave less than this part of its variance is fitted exactly: the rest is
# rounding, and its scales are none.
EXACT_SHARE = 1e-22


def check_assumptions(dataset: Dataset, design: Design, specification: Specification) -> list[Finding]:
    """Return the findings on a dataset whose design passed the gate."""
    subjects = repeated_subjects(dataset, specification)
    findings = _unlike_distributions(design, subjects)
    columns = sample_columns(dataset.values)
    if not columns.size:
        return findings
    whole = len(columns) == len(dataset.features)
    values = dataset.values if whole else dataset.values[:, columns]
    names = tuple(dataset.features[i] for i in columns)
    products = batch_products(values, design)
    if design.covariates.shape[1]:
        findings += check_slopes(values, names, products, design, subjects)
        findings += _influential(products, design, subjects)
    findings += check_residuals(values, names, dataset.rows, design, subjects)
    if specification.eb and specification.parametric:
        findings += _unfit_priors(products, names, design, specification)
    return findings


def _unlike_distributions(design: Design, subjects: Subjects | None) -> list[Finding]:
    """Return the batches whose continuous covariates are spread otherwise, each subject taken once per batch."""
    findings = []
    codes, covariates = design.codes, design.covariates
    if subjects is not None:
        once = np.unique(np.column_stack([design.codes, subjects.codes]), axis=0, return_index=True)[1]
        codes, covariates = codes[once], covariates[once]
    for index, (name, level) in enumerate(design.coding.columns):
        if level is not None:
            continue
        column, unlike = covariates[:, index], {}
        distances = _distances_from_rest(column, codes, len(design.batches))
        for code in np.flatnonzero(distances > KS_DISTANCE).tolist():
            if stats.ks_2samp(column[codes == code], column[codes != code]).pvalue < KS_P:
                unlike[design.batches[code]] = float(distances[code])
        if unlike:
            shown = listed([f"{batch} (D {distance:.2f})" for batch, distance in unlike.items()])
            message = (
                f"{name} is distributed otherwise than in the other batches (Kolmogorov-Smirnov): {shown}. The result "
                "rests on its effect having the planned form; run without these batches as a sensitivity analysis."
            )
            findings.append(
                Finding("covariate_distribution", "warn", message, columns=(name,), batches=tuple(unlike))
            )
    return findings


def _influential(products: BatchProducts, design: Design, subjects: Subjects | None) -> list[Finding]:
    """Return a warning for batches without which a covariate's effect is another (jack-knife by batch)."""
    gram, cross = products.gram.sum(axis=0), products.cross.sum(axis=0)
    whole = np.linalg.solve(gram, cross)
    free = int(products.counts.sum()) - len(design.batches) - len(gram)
    residual = np.maximum(products.squares.sum(axis=0) - np.einsum("cf,cf->f", cross, whole), 0.0) / max(
        free, 1
    )
    # Repeated scans of a subject add little: take the errors as if its scans were all alike.
    repeats = 1.0 if subjects is None else subjects.scans_per_subject
    errors = np.sqrt(
        repeats * np.diag(np.linalg.inv(gram))[:, None] * np.maximum(residual, np.finfo(float).tiny)
    )
    rests = gram - products.gram
    moved = np.full(len(rests), np.inf)
    full = np.linalg.matrix_rank(rests, tol=1e-8, hermitian=True) == len(gram)
    without = np.linalg.solve(rests[full], (cross - products.cross)[full])
    moved[full] = np.median(np.abs(without - whole) / errors, axis=2).max(axis=1)
    influential = {
        label: float(by) for label, by in zip(design.batches, moved, strict=True) if by > INFLUENCE_ERRORS
    }
    if not influential:
        return []
    shown = listed([f"{label} ({moved:.1f} standard errors)" for label, moved in influential.items()])
    message = (
        f"A covariate's effect rests on single batches; left out, they move it by: {shown}. Look at their covariates "
        "and values, and name leave_one_batch_out among the sensitivity analyses."
    )
    return [Finding("influential_batch", "warn", message, batches=tuple(influential))]


def _unfit_priors(
    products: BatchProducts, names: tuple[str, ...], design: Design, specification: Specification
) -> list[Finding]:
    """Return a warning by pool for batches whose shifts or scales over its features are far from the assumed priors."""
    gram, cross = products.gram.sum(axis=0), products.cross.sum(axis=0)
    slopes = np.linalg.solve(gram, cross) if len(gram) else cross
    explained = 2 * np.einsum("bcf,cf->bf", products.cross, slopes)
    explained -= ((products.gram @ slopes) * slopes).sum(axis=1)
    residual = np.maximum(products.squares - explained, np.finfo(float).tiny)
    pooled = residual.sum(axis=0) / products.counts.sum()
    kept = np.flatnonzero(pooled > EXACT_SHARE)
    pooled, residual = pooled[kept], residual[:, kept]
    shift = products.means[:, kept] / np.sqrt(pooled)
    scale = residual / (products.counts[:, None] - 1.0).clip(1.0) / pooled
    findings = []
    for pool, columns in _pool_columns(tuple(names[i] for i in kept), specification).items():
        if len(columns) < FEWEST_FOR_PRIORS:
            continue
        own = None if specification.mean_only else scale[:, columns]
        findings += _unfit_pool(pool, shift[:, columns], own, design, specification)
    return findings


def _pool_columns(names: tuple[str, ...], specification: Specification) -> dict[str, list[int]]:
    """Return the positions among `names` of each pool's features; one nameless pool where none are planned."""
    if not specification.pools:
        return {"": list(range(len(names)))}
    position = {name: index for index, name in enumerate(names)}
    return {
        pool.name: [position[name] for name in pool.features if name in position]
        for pool in specification.pools
    }


def _unfit_pool(
    pool: str, shift: FloatArray, scale: FloatArray | None, design: Design, specification: Specification
) -> list[Finding]:
    critical = PRIOR_CRITICAL / np.sqrt(shift.shape[1])
    shifts = np.sort(shift, axis=1)
    spread = shifts.std(axis=1, ddof=1, keepdims=True)
    normal = special.ndtr((shifts - shifts.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0))
    distances = np.where(spread[:, 0] > 0, _distances(normal), 0.0)
    if scale is not None:
        scales = np.sort(scale, axis=1)
        varying = np.flatnonzero((scales.var(axis=1) > 0) & (design.batch_sizes > 1))
        cumulative = _scale_distributions(scales[varying], design.batch_sizes[varying] - 1)
        distances[varying] = np.maximum(distances[varying], _distances(cumulative))
    unfit = {
        label: float(distance)
        for label, distance in zip(design.batches, distances, strict=True)
        if distance > critical and label != specification.reference_batch
    }
    if not unfit:
        return []
    shown = listed([f"{label} (D {distance:.2f})" for label, distance in unfit.items()])
    message = (
        f"Shifts or scales over the features{f' of pool {pool}' if pool else ''} do not follow the assumed priors in "
        f"{shown}; above {critical:.2f} is not chance. Separate unlike features into pools, or plan the non-parametric "
        "mode."
    )
    return [Finding("priors_do_not_fit", "warn", message, batches=tuple(unfit))]


def _scale_distributions(ordered: FloatArray, degrees: IntArray) -> FloatArray:
    """Return, by batch, the distribution function of estimated scales under an inverse gamma prior, at those `ordered`.

    A scale estimated with so many degrees of freedom is the true one times chi squared over them: of an inverse gamma
    with shape a and mean m that is m (a - 1) / a times F with (degrees, 2 a), or chi squared where nothing varies
    beyond the estimation. Shape by moments. Without the estimation error every small batch would seem unfit.
    """
    own = degrees[:, None].astype(np.float64)
    relative = ordered / ordered.mean(axis=1, keepdims=True)
    inflation = (relative**2).mean(axis=1, keepdims=True) / (1 + 2 / own)
    beyond = inflation[:, 0] > 1 + 1e-6
    found = np.empty_like(ordered)
    found[~beyond] = special.gammainc(own[~beyond] / 2, relative[~beyond] * own[~beyond] / 2)
    shape = 2 + 1 / (inflation[beyond] - 1)
    weighted = relative[beyond] * own[beyond] / (shape - 1)
    found[beyond] = special.betainc(own[beyond] / 2, shape, weighted / (weighted + 2))
    return found


def _distances(cumulative: FloatArray) -> FloatArray:
    """Return, by row, the Kolmogorov-Smirnov distance of a sample, in order, given its distribution function there."""
    steps = np.arange(cumulative.shape[1] + 1) / cumulative.shape[1]
    return np.maximum((steps[1:] - cumulative).max(axis=1), (cumulative - steps[:-1]).max(axis=1))


def _distances_from_rest(column: FloatArray, codes: IntArray, batches: int) -> FloatArray:
    """Return, by batch, the Kolmogorov-Smirnov distance of its values in `column` [scans] from all others."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    below = np.cumsum(codes[order][:, None] == np.arange(batches), axis=0)[last]
    counts = np.bincount(codes, minlength=batches)
    rest = (last + 1)[:, None] - below
    return np.asarray(np.abs(below / counts - rest / (len(codes) - counts)).max(axis=0))
