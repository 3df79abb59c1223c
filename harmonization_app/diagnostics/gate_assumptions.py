"""Checks of what the ComBat family assumes: alike covariates, alike slopes, no batch that decides, priors that fit.

One pass over at most 500 complete features gives, by batch, the covariates' cross products with each other and with
the values; most of the rest follows from those. It warns and never stops: the plan decides. Sources: Jodoin et al.,
Sci Rep 15:41508 (2025) (alike slopes); Johnson, Li, Rabinovic, Biostatistics 8:118 (2007) (priors).
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray
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


def check_assumptions(dataset: Dataset, design: Design, specification: Specification) -> list[Finding]:
    """Return the findings on a dataset whose design passed the gate."""
    subjects = repeated_subjects(dataset, specification)
    findings = _unlike_distributions(design, subjects)
    columns = sample_columns(dataset.values)
    if not columns.size:
        return findings
    values = dataset.values[:, columns]
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
        for code, batch in enumerate(design.batches):
            inside, outside = column[codes == code], column[codes != code]
            distance = _two_sample_distance(inside, outside)
            if distance > KS_DISTANCE and stats.ks_2samp(inside, outside).pvalue < KS_P:
                unlike[batch] = distance
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
    influential: dict[str, float] = {}
    for batch, label in enumerate(design.batches):
        rest = gram - products.gram[batch]
        if np.linalg.matrix_rank(rest, tol=1e-8, hermitian=True) < len(rest):
            influential[label] = float("inf")
            continue
        without = np.linalg.solve(rest, cross - products.cross[batch])
        moved = float(np.median(np.abs(without - whole) / errors, axis=1).max())
        if moved > INFLUENCE_ERRORS:
            influential[label] = moved
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
    explained -= np.einsum("cf,bcd,df->bf", slopes, products.gram, slopes, optimize=True)
    residual = np.maximum(products.squares - explained, np.finfo(float).tiny)
    pooled = residual.sum(axis=0) / products.counts.sum()
    shift = products.means / np.sqrt(pooled)
    scale = residual / (products.counts[:, None] - 1.0).clip(1.0) / pooled
    findings = []
    for pool, columns in _pool_columns(names, specification).items():
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
    unfit: dict[str, float] = {}
    for batch, label in enumerate(design.batches):
        if label == specification.reference_batch:
            continue
        ordered = np.sort(shift[batch])
        spread = ordered.std(ddof=1)
        distances = [_distance(special.ndtr((ordered - ordered.mean()) / spread))] if spread > 0 else [0.0]
        if scale is not None and scale[batch].var() > 0:
            distances.append(
                _distance(_scale_distribution(np.sort(scale[batch]), int(design.batch_sizes[batch]) - 1))
            )
        if max(distances) > critical:
            unfit[label] = max(distances)
    if not unfit:
        return []
    shown = listed([f"{label} (D {distance:.2f})" for label, distance in unfit.items()])
    message = (
        f"Shifts or scales over the features{f' of pool {pool}' if pool else ''} do not follow the assumed priors in "
        f"{shown}; above {critical:.2f} is not chance. Separate unlike features into pools, or plan the non-parametric "
        "mode."
    )
    return [Finding("priors_do_not_fit", "warn", message, batches=tuple(unfit))]


def _scale_distribution(ordered: FloatArray, degrees: int) -> FloatArray:
    """Return the distribution function of estimated scales under an inverse gamma prior, at the `ordered` ones.

    A scale estimated with so many degrees of freedom is the true one times chi squared over them: of an inverse gamma
    with shape a and mean m that is m (a - 1) / a times F with (degrees, 2 a), or chi squared where nothing varies
    beyond the estimation. Shape by moments. Without the estimation error every small batch would seem unfit.
    """
    centre = float(ordered.mean())
    inflation = float((ordered**2).mean()) / centre**2 / (1 + 2 / degrees)
    if inflation <= 1 + 1e-6:
        return np.asarray(stats.chi2.cdf(ordered / centre * degrees, degrees))
    shape = 2 + 1 / (inflation - 1)
    return np.asarray(stats.f.cdf(ordered / centre * shape / (shape - 1), degrees, 2 * shape))


def _distance(cumulative: FloatArray) -> float:
    """Return the Kolmogorov-Smirnov distance of a sample, in order, whose distribution function is given at it."""
    steps = np.arange(len(cumulative) + 1) / len(cumulative)
    return float(max((steps[1:] - cumulative).max(), (cumulative - steps[:-1]).max()))


def _two_sample_distance(first: FloatArray, second: FloatArray) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples."""
    first, second = np.sort(first), np.sort(second)
    both = np.concatenate([first, second])
    below = np.searchsorted(first, both, "right") / len(first)
    return float(np.abs(below - np.searchsorted(second, both, "right") / len(second)).max())
