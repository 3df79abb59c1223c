"""How far the batches' covariances lie apart: what ComBat leaves and CovBat (Chen et al., HBM 43:1179 (2022)) is for.

Residuals given batch and covariates, each feature over its pooled SD; every batch's covariance is shrunk towards a
multiple of the identity (Ledoit and Wolf, J Multivar Anal 88:365 (2004)); the distance of two batches is the Frobenius
norm of the difference over the root of the number of features, that of a table the mean over its pairs. Small batches
lie apart by chance alone: `expected` is the mean over permutations of the scans, which keep the batch sizes. Bounded:
at most 60 features and 1,000 scans, drawn by the seed, and 60 permutations; batches of fewer than 10 scans are left
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.diagnostics.regression import regress
from harmonization_app.diagnostics.scope import draw

MOST_FEATURES, MOST_SCANS, PERMUTATIONS = 60, 1000, 60
FEWEST_SCANS = 10
LISTED_PAIRS = 50


@dataclass(frozen=True, slots=True)
class Pair:
    """The distance of two batches' covariances, and the one to expect of their sizes alone."""

    first: str
    second: str
    distance: float
    expected: float


@dataclass(frozen=True, slots=True)
class CovarianceDistance:
    """Mean distance over pairs of batches, its permutation null and p; the furthest pairs against expectation."""

    evaluable: bool
    reason: str
    distance: float | None = None
    expected: float | None = None
    expected_95: float | None = None
    p: float | None = None
    pairs: tuple[Pair, ...] = ()
    features: int = 0
    permutations: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def covariance_distance(
    values: FloatArray, codes: IntArray, covariates: FloatArray, batches: Sequence[str], seed: int
) -> CovarianceDistance:
    """Return the distance between batches of `values` [scans x features], complete and varying."""
    large = np.flatnonzero(np.bincount(codes, minlength=len(batches)) >= FEWEST_SCANS)
    kept = np.flatnonzero(np.isin(codes, large))
    if len(large) < 2 or values.shape[1] < 2:
        reason = f"Fewer than two batches of {FEWEST_SCANS} scans, or fewer than two complete features."
        return CovarianceDistance(False, reason)
    random = np.random.default_rng(seed)
    rows = kept[_drawn(codes[kept], random)]
    columns = draw(values.shape[1], MOST_FEATURES, seed)
    own = np.unique(codes[rows], return_inverse=True)[1]
    residuals = _residuals(values[np.ix_(rows, columns)], own, covariates[rows])
    if residuals is None:
        return CovarianceDistance(False, "Batches and covariates of the scans drawn cannot be told apart.")
    observed = _distances(residuals, own, len(large))
    null = np.stack([_distances(residuals, random.permutation(own), len(large)) for _ in range(PERMUTATIONS)])
    whole = null.mean(axis=1)
    excess = observed - null.mean(axis=0)
    named = list(combinations([batches[int(i)] for i in large], 2))
    pairs = tuple(
        Pair(named[i][0], named[i][1], float(observed[i]), float(null[:, i].mean()))
        for i in np.argsort(-excess, kind="stable")[:LISTED_PAIRS]
    )
    return CovarianceDistance(
        True,
        "",
        float(observed.mean()),
        float(whole.mean()),
        float(np.quantile(whole, 0.95)),
        float((1 + (whole >= observed.mean()).sum()) / (1 + PERMUTATIONS)),
        pairs,
        len(columns),
        PERMUTATIONS,
    )


def _drawn(codes: IntArray, random: np.random.Generator) -> IntArray:
    """Return at most 1,000 scans in order, each batch in proportion and with at least ten."""
    if len(codes) <= MOST_SCANS:
        return np.arange(len(codes))
    parts = []
    for batch in np.unique(codes):
        own = random.permutation(np.flatnonzero(codes == batch))
        parts.append(own[: max(FEWEST_SCANS, len(own) * MOST_SCANS // len(codes))])
    return np.sort(np.concatenate(parts))


def _residuals(values: FloatArray, codes: IntArray, covariates: FloatArray) -> FloatArray | None:
    """Return the residuals given batch and covariates over their SD; None where these cannot be told apart."""
    design = np.hstack([np.eye(int(codes.max()) + 1)[codes], covariates - covariates.mean(axis=0)])
    fit = regress(design, values)
    if not np.isfinite(fit.degrees).all():
        return None
    residuals = values - design @ fit.coefficients
    spread = np.sqrt(fit.residual_squares / fit.degrees)
    return np.asarray(residuals / np.where(spread > 0, spread, 1.0))


def _distances(residuals: FloatArray, codes: IntArray, batches: int) -> FloatArray:
    """Return the distance of every pair of batches, in the order of `itertools.combinations`."""
    order = np.argsort(codes, kind="stable")
    bounds = np.cumsum(np.bincount(codes, minlength=batches))[:-1]
    flat = np.stack([_shrunk(part).ravel() for part in np.split(residuals[order], bounds)])
    products = flat @ flat.T
    lengths = np.diag(products)
    first, second = np.triu_indices(batches, 1)
    squares = lengths[first] + lengths[second] - 2 * products[first, second]
    return np.asarray(np.sqrt(np.maximum(squares, 0.0) / residuals.shape[1]))


def _shrunk(values: FloatArray) -> FloatArray:
    """Return the covariance of `values` [scans x features], shrunk by the weight of Ledoit and Wolf.

    The weight is found on squares over the scans, as published; the covariance is over the scans less one.
    """
    centred = values - values.mean(axis=0)
    scans, features = values.shape
    covariance = centred.T @ centred / scans
    away = covariance - float(np.trace(covariance)) / features * np.eye(features)
    apart = float((away**2).sum())
    lengths = np.einsum("sf,sf->s", centred, centred)
    noise = float((lengths**2).sum() / scans - (covariance**2).sum()) / scans
    weight = min(max(noise / apart, 0.0), 1.0) if apart > 0 else 1.0
    return np.asarray((covariance - weight * away) * (scans / (scans - 1)))
