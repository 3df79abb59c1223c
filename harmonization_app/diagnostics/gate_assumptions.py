"""Checks of what the ComBat family assumes: alike covariates, alike slopes, no batch that decides, priors that fit.

One pass over at most 500 complete features gives, by batch, the covariates' cross products with each other and with
the values; everything else follows from those. It warns and never stops: the plan decides. Sources: Jodoin et al.,
Sci Rep 15:41508 (2025) (alike slopes); Johnson, Li, Rabinovic, Biostatistics 8:118 (2007) (priors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import listed

MOST_FEATURES = 500
SIGNIFICANCE = 0.05
# Kolmogorov-Smirnov: a difference that matters and is not chance.
KS_DISTANCE, KS_P = 0.4, 0.001
UNLIKE_SLOPES_SHARE = 0.1
# A batch without which a covariate's effect moves by more than this many of its standard errors, in the median feature.
INFLUENCE_ERRORS = 2.0
FEWEST_FOR_PRIORS = 30
# Critical distance at about 0.1 % for n features is this over the root of n.
PRIOR_CRITICAL = 1.95


@dataclass(frozen=True, slots=True, eq=False)
class _Products:
    """By batch: means and squares of the values [batches x features], covariate products and cross products."""

    counts: IntArray
    means: FloatArray
    squares: FloatArray
    gram: FloatArray
    cross: FloatArray


def check_assumptions(dataset: Dataset, design: Design, specification: Specification) -> list[Finding]:
    """Return the warnings on a dataset whose design passed the gate."""
    findings = _unlike_distributions(design)
    columns = _sample(dataset.values)
    if not columns.size:
        return findings
    products = _products(dataset.values[:, columns], design)
    if design.covariates.shape[1]:
        findings += _unlike_slopes(products, design)
        findings += _influential(products, design)
    if specification.eb and specification.parametric and columns.size >= FEWEST_FOR_PRIORS:
        findings += _unfit_priors(products, design, specification)
    return findings


def _sample(values: FloatArray) -> IntArray:
    """Return at most 500 evenly spaced columns that are complete and vary."""
    chosen = np.unique(np.linspace(0, values.shape[1] - 1, min(MOST_FEATURES, values.shape[1])).astype(int))
    part = values[:, chosen]
    return np.asarray(chosen[np.isfinite(part).all(axis=0) & (part.std(axis=0) > 0)])


def _products(values: FloatArray, design: Design) -> _Products:
    scaled = design.covariates - design.covariates.mean(axis=0)
    scaled = scaled / np.where(scaled.std(axis=0) > 0, scaled.std(axis=0), 1.0)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    parts = []
    for batch in range(len(design.batches)):
        own = design.codes == batch
        x, y = scaled[own], values[own]
        centred, within = y - y.mean(axis=0), x - x.mean(axis=0)
        squares = np.einsum("sf,sf->f", centred, centred)
        parts.append((int(own.sum()), y.mean(axis=0), squares, within.T @ within, within.T @ centred))
    counts, *rest = zip(*parts, strict=True)
    return _Products(np.array(counts), *(np.stack(item) for item in rest))


def _unlike_distributions(design: Design) -> list[Finding]:
    findings = []
    for index, (name, level) in enumerate(design.coding.columns):
        if level is not None:
            continue
        column, unlike = design.covariates[:, index], {}
        for code, batch in enumerate(design.batches):
            test = stats.ks_2samp(column[design.codes == code], column[design.codes != code])
            if test.statistic > KS_DISTANCE and test.pvalue < KS_P:
                unlike[batch] = float(test.statistic)
        if unlike:
            shown = listed([f"{batch} (D {distance:.2f})" for batch, distance in unlike.items()])
            message = (
                f"{name} is distributed otherwise than in the other batches (Kolmogorov-Smirnov): {shown}."
            )
            findings.append(
                Finding("covariate_distribution", "warn", message, columns=(name,), batches=tuple(unlike))
            )
    return findings


def _unlike_slopes(products: _Products, design: Design) -> list[Finding]:
    """Return a warning where the F test of batch by covariate interaction finds unlike slopes, FDR-adjusted."""
    batches, columns = products.gram.shape[:2]
    inverses = np.linalg.pinv(products.gram, hermitian=True, rcond=1e-10)
    own = np.einsum("bcf,bcd,bdf->f", products.cross, inverses, products.cross)
    gram, cross = products.gram.sum(axis=0), products.cross.sum(axis=0)
    common = np.einsum("cf,cf->f", cross, np.linalg.solve(gram, cross))
    ranks = sum(int(np.linalg.matrix_rank(part, tol=1e-8, hermitian=True)) for part in products.gram)
    between, free = ranks - columns, int(products.counts.sum()) - batches - ranks
    if between < 1 or free < 10:
        return []
    residual = np.maximum(products.squares.sum(axis=0) - own, np.finfo(float).tiny)
    p = stats.f.sf(np.maximum(own - common, 0.0) / between / (residual / free), between, free)
    unlike = stats.false_discovery_control(p) < SIGNIFICANCE
    if unlike.mean() <= UNLIKE_SLOPES_SHARE:
        return []
    message = (
        f"The covariates' effects differ between batches in {unlike.mean():.0%} of {len(p)} features looked at (batch "
        "by covariate F test, FDR 5 %). The method takes them as alike; look for a batch with a scale error, other "
        "participants or a bent effect."
    )
    return [Finding("unlike_slopes", "warn", message, columns=design.coding.column_names)]


def _influential(products: _Products, design: Design) -> list[Finding]:
    """Return a warning for batches without which a covariate's effect is another (jack-knife by batch)."""
    gram, cross = products.gram.sum(axis=0), products.cross.sum(axis=0)
    whole = np.linalg.solve(gram, cross)
    free = int(products.counts.sum()) - len(design.batches) - len(gram)
    residual = np.maximum(products.squares.sum(axis=0) - np.einsum("cf,cf->f", cross, whole), 0.0) / max(
        free, 1
    )
    errors = np.sqrt(np.diag(np.linalg.inv(gram))[:, None] * np.maximum(residual, np.finfo(float).tiny))
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
    message = f"A covariate's effect rests on single batches; left out, they move it by: {shown}."
    return [Finding("influential_batch", "warn", message, batches=tuple(influential))]


def _unfit_priors(products: _Products, design: Design, specification: Specification) -> list[Finding]:
    """Return a warning for batches whose shifts or scales over features are far from the assumed priors."""
    gram, cross = products.gram.sum(axis=0), products.cross.sum(axis=0)
    slopes = np.linalg.solve(gram, cross) if len(gram) else cross
    explained = 2 * np.einsum("bcf,cf->bf", products.cross, slopes)
    explained -= np.einsum("cf,bcd,df->bf", slopes, products.gram, slopes)
    residual = np.maximum(products.squares - explained, np.finfo(float).tiny)
    pooled = residual.sum(axis=0) / products.counts.sum()
    shift = products.means / np.sqrt(pooled)
    scale = residual / (products.counts[:, None] - 1.0).clip(1.0) / pooled
    critical = PRIOR_CRITICAL / np.sqrt(shift.shape[1])
    unfit: dict[str, float] = {}
    for batch, label in enumerate(design.batches):
        if label == specification.reference_batch:
            continue
        distances = [_distance(shift[batch], stats.norm(shift[batch].mean(), shift[batch].std(ddof=1)))]
        centre, spread = scale[batch].mean(), scale[batch].var(ddof=1)
        if not specification.mean_only and spread > 0:
            shape, rate = 2 + centre**2 / spread, centre + centre**3 / spread
            distances.append(_distance(scale[batch], stats.invgamma(shape, scale=rate)))
        if max(distances) > critical:
            unfit[label] = max(distances)
    if not unfit:
        return []
    shown = listed([f"{label} (D {distance:.2f})" for label, distance in unfit.items()])
    message = (
        f"Shifts or scales over the features do not follow the assumed priors in {shown}; above {critical:.2f} is not "
        "chance. Separate unlike features into pools, or plan the non-parametric mode."
    )
    return [Finding("priors_do_not_fit", "warn", message, batches=tuple(unfit))]


def _distance(sample: FloatArray, distribution: stats.distributions.rv_frozen) -> float:
    """Return the Kolmogorov-Smirnov distance of a sample from a distribution."""
    ordered = distribution.cdf(np.sort(sample))
    steps = np.arange(len(sample) + 1) / len(sample)
    return float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
