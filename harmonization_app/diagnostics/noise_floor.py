"""What batches that do not differ show all the same, in the median feature: the yardstick of an effect size.

`noise_floor` is what to expect, `noise_upper` what chance reaches at most in 19 of 20 tables: features that go together
rise and fall together, so that a median over many of them is no surer than one over few.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import FloatArray, IntArray

DRAWS = 100


def noise_floor(
    codes: IntArray, covariates: FloatArray, values: FloatArray, subjects: IntArray | None = None
) -> float:
    """Return the median partial eta squared of batches that do not differ; the mean is up to twice that.

    Independent scans: the median of Beta(df / 2, residual df / 2), exactly. Scans that repeat `subjects` are alike, so
    that batches seem to differ more: expected squares with the median intraclass correlation of the residuals of
    `values`, degrees of freedom after Satterthwaite (Biometrics Bull 2:110 (1946)).
    """
    full, reduced = _bases(codes, covariates)
    between, free = full.shape[1] - reduced.shape[1], len(codes) - full.shape[1]
    if between < 1 or free < 1:
        return 1.0
    if subjects is None or not values.shape[1]:
        return float(stats.beta.median(between / 2, free / 2))
    people = np.eye(int(subjects.max()) + 1)[subjects]
    alike = _intraclass(values - full @ (full.T @ values), subjects)
    own = np.linalg.qr(full - reduced @ (reduced.T @ full))[0][:, :between]
    weights = (1 - alike) + alike * np.linalg.svd(own.T @ people, compute_uv=False) ** 2
    left = (1 - alike) * free + alike * (len(codes) - float(((full.T @ people) ** 2).sum()))
    degrees = float(weights.sum() ** 2 / (weights**2).sum())
    above = float(stats.f.median(degrees, free) * weights.sum())
    return above / (above + max(left, np.finfo(float).tiny))


def noise_upper(
    codes: IntArray,
    covariates: FloatArray,
    values: FloatArray,
    subjects: IntArray | None,
    random: np.random.Generator,
) -> float | None:
    """Return the 95th percentile of the median partial eta squared of complete `values` without a batch effect."""
    if not values.shape[1]:
        return None
    clusters = np.arange(len(codes)) if subjects is None else subjects
    return upper_share(*_bases(codes, covariates), values, clusters, random)


def upper_share(
    full: FloatArray,
    reduced: FloatArray,
    values: FloatArray,
    clusters: IntArray,
    random: np.random.Generator,
) -> float:
    """Return the 95th percentile of the median share that `full` explains of what `reduced` leaves, by chance alone.

    Both are orthonormal bases. Residuals of each cluster (subject or scan) are turned by one random sign over all
    features, which keeps how features and the scans of a subject go together (wild cluster bootstrap: Cameron, Gelbach,
    Miller, Rev Econ Stat 90:414 (2008)).
    """
    residuals = values - full @ (full.T @ values)
    drawn = []
    for _ in range(DRAWS):
        turned = residuals * random.choice([-1.0, 1.0], int(clusters.max()) + 1)[clusters, None]
        whole = (turned**2).sum(axis=0)
        left = [whole - ((basis.T @ turned) ** 2).sum(axis=0) for basis in (full, reduced)]
        drawn.append(float(np.median(1 - left[0] / left[1])))
    return float(np.quantile(drawn, 0.95, method="higher"))


def _bases(codes: IntArray, covariates: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return orthonormal bases of batch and covariates, and of the covariates alone."""
    centred = covariates - covariates.mean(axis=0)
    full = np.hstack([np.eye(int(codes.max()) + 1)[codes], centred])
    return np.linalg.qr(full)[0], np.linalg.qr(np.hstack([np.ones((len(codes), 1)), centred]))[0]


def _intraclass(residuals: FloatArray, subjects: IntArray) -> float:
    """Return the median over features of the correlation of residuals of one subject's scans, 0 to 1."""
    sizes = np.bincount(subjects)
    order = np.argsort(subjects, kind="stable")
    sums = np.add.reduceat(residuals[order], np.flatnonzero(np.diff(subjects[order], prepend=-1)), axis=0)
    squares = np.einsum("sf,sf->f", residuals, residuals)
    pairs = float((sizes * (sizes - 1)).sum())
    if pairs == 0:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = ((sums**2).sum(axis=0) - squares) / pairs / (squares / len(subjects))
    known = correlation[np.isfinite(correlation)]
    return float(np.clip(np.median(known), 0.0, 1.0)) if known.size else 0.0
