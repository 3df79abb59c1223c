"""Surrogate variables of scans: unmodelled factors that many features share.

Sources: Leek, Storey, PLoS Genet 3:e161 (2007) and Proc Natl Acad Sci 105:18718 (2008): iteratively re-weighted
estimation; Buja, Eyuboglu, Multivar Behav Res 27:509 (1992): how many factors are more than chance; Efron et al., J Am
Stat Assoc 96:1151 (2001): local false discovery rates. Definitions as in the R package sva 3.46, except that the
density of the probits is interpolated between its 512 points and not smoothed once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, ndtri

from harmonization_app.algorithms.base import FloatArray

# Local false discovery rates: p values are cut here, the null is read above LAMBDA, the bandwidth widened.
P_LIMIT, LAMBDA, BANDWIDTH_FACTOR = 1e-8, 0.8, 1.5
DENSITY_POINTS, DENSITY_MARGIN = 512, 3
# Singular values below this part of the largest are rounding.
RANK_RATIO = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Surrogates:
    """What is learnt of one pool, in the features' own units.

    The factors of a scan are its values less `centre` [features] and less `slopes` [columns x features] times its
    covariates over `middle` [columns], times `loadings` [features x factors]; `effects` [factors x features] is what
    they add to the features. `slopes` are zero where the factors are learnt from weighted features.
    """

    centre: FloatArray
    middle: FloatArray
    slopes: FloatArray
    loadings: FloatArray
    effects: FloatArray

    def factors(self, values: FloatArray, covariates: FloatArray) -> FloatArray:
        """Return the factors [scans x factors] of values [scans x features] with their covariates."""
        left = values - self.centre - (covariates - self.middle) @ self.slopes
        return np.asarray(left @ self.loadings)


def count_factors(
    values: FloatArray, covariates: FloatArray, permutations: int, significance: float, seed: tuple[int, int]
) -> int:
    """Return how many components of the residuals explain more than those of permuted residuals.

    `values` [scans x features] are standardized as they will be used. Each feature's residuals are permuted by
    themselves; a component counts while no earlier one has failed at `significance`.
    """
    basis = _basis(covariates)
    residuals = _residuals(values, basis)
    observed = _shares(residuals, basis.shape[1])
    random = np.random.default_rng(list(seed))
    exceeded = np.zeros(len(observed))
    for _ in range(permutations):
        permuted = _residuals(random.permuted(residuals, axis=0), basis)
        exceeded += _shares(permuted, basis.shape[1]) >= observed
    return int((np.maximum.accumulate(exceeded / permutations) <= significance).sum())


def feature_weights(
    values: FloatArray, covariates: FloatArray, factors: int, iterations: int
) -> tuple[FloatArray, float]:
    """Return for each feature the probability that the factors, and not the covariates, move it [features], and the
    largest change of one in the last round.

    Found with the factors in turn: from the residuals first, then from the features weighted so. Stops early where
    too few features are left to tell the factors.
    """
    weights, change = np.zeros(values.shape[1]), 1.0
    scores = _left_vectors(_residuals(values, _basis(covariates)), factors)
    intercept = _basis(covariates[:, :0])
    for _ in range(iterations):
        with_scores = _basis(scores)
        follows_covariates = 1 - local_fdr(
            _f_test(values, _basis(np.hstack([covariates, scores])), with_scores)
        )
        follows_factors = 1 - local_fdr(_f_test(values, with_scores, intercept))
        found = follows_factors * (1 - follows_covariates)
        weights, change = found, float(np.abs(found - weights).max())
        if not has_enough_features(weights, factors):
            break
        weighted = values * weights
        scores = _left_vectors(weighted - weighted.mean(axis=0), factors)
    return weights, change


def learn_surrogates(
    values: FloatArray,
    weighting: FloatArray,
    covariates: FloatArray,
    factors: int,
    *,
    from_residuals: bool,
) -> Surrogates:
    """Return the frozen factors of `values` [scans x features].

    Centred values, or their residuals beside the covariates, times `weighting` [features] are decomposed; the right
    singular vectors over the singular values give the factors of any scan, those learnt from and new ones alike
    (Parker et al., PeerJ 2:e561 (2014)).
    """
    centre, middle = values.mean(axis=0), covariates.mean(axis=0)
    slopes = np.zeros((covariates.shape[1], values.shape[1]))
    if from_residuals:
        slopes = np.linalg.lstsq(covariates - middle, values - centre, rcond=None)[0]
    left = values - centre - (covariates - middle) @ slopes
    _, singular, rotation = np.linalg.svd(left * weighting, full_matrices=False)
    kept = rotation[:factors].T
    # The sign of a component is arbitrary: its largest entry is made positive.
    largest = np.take_along_axis(kept, np.abs(kept).argmax(axis=0)[None, :], axis=0)
    loadings = weighting[:, None] * kept * np.sign(largest) / singular[:factors]
    design = np.hstack([left @ loadings, np.ones((len(values), 1)), covariates - middle])
    effects = np.linalg.lstsq(design, values - centre, rcond=None)[0][:factors]
    return Surrogates(centre, middle, slopes, loadings, effects)


def local_fdr(probabilities: FloatArray) -> FloatArray:
    """Return for each p value the probability that its feature has no effect, never falling as p rises."""
    null_share = min(float((probabilities >= LAMBDA).mean()) / (1 - LAMBDA), 1.0)
    probits = ndtri(np.clip(probabilities, P_LIMIT, 1 - P_LIMIT))
    width = BANDWIDTH_FACTOR * _bandwidth(probits)
    margin = DENSITY_MARGIN * width
    points = np.linspace(probits.min() - margin, probits.max() + margin, DENSITY_POINTS)
    distances = (points[:, None] - probits) / width
    density = np.exp(-0.5 * distances**2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
    normal = np.exp(-0.5 * probits**2) / np.sqrt(2 * np.pi)
    rates = np.minimum(null_share * normal / np.interp(probits, points, density), 1.0)
    order = np.argsort(probabilities, kind="stable")
    rates[order] = np.maximum.accumulate(rates[order])
    return np.asarray(rates)


def has_enough_features(weights: FloatArray, factors: int) -> bool:
    """Return whether the features that tell of the factors outnumber these, counted by their weights."""
    greatest = float(weights.max())
    return greatest > P_LIMIT and float(weights.sum()) / greatest >= factors + 1


def variance_explained(factors: FloatArray, columns: FloatArray) -> FloatArray:
    """Return the share of each factor's variance that `columns` [scans x columns] explain [factors]."""
    basis = _basis(columns)
    left = _residuals(factors, basis)
    whole = factors - factors.mean(axis=0)
    return np.asarray(1 - (left**2).sum(axis=0) / (whole**2).sum(axis=0))


def _bandwidth(values: FloatArray) -> float:
    """Return Silverman's rule of thumb as R's bw.nrd0 has it."""
    deviation = float(values.std(ddof=1))
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = (
        min(deviation, float(quartiles[1] - quartiles[0]) / 1.34) or deviation or abs(float(values[0])) or 1.0
    )
    return 0.9 * spread * len(values) ** -0.2


def _basis(columns: FloatArray) -> FloatArray:
    """Return an orthonormal basis of an intercept and `columns`."""
    spread = np.where(columns.std(axis=0) > 0, columns.std(axis=0), 1.0)
    scaled = (columns - columns.mean(axis=0)) / spread
    return np.asarray(np.linalg.qr(np.hstack([np.ones((len(columns), 1)), scaled]))[0])


def _residuals(values: FloatArray, basis: FloatArray) -> FloatArray:
    return np.asarray(values - basis @ (basis.T @ values))


def _shares(residuals: FloatArray, columns: int) -> FloatArray:
    """Return the components' shares of the residuals' squares; the model's columns leave that many without."""
    scans, features = residuals.shape
    gram = residuals @ residuals.T if scans <= features else residuals.T @ residuals
    squares = np.linalg.eigvalsh(gram)[::-1][: min(scans, features) - columns]
    return np.asarray(squares / squares.sum())


def _left_vectors(values: FloatArray, factors: int) -> FloatArray:
    """Return the first left singular vectors [scans x factors], by the smaller product of `values` with itself."""
    scans, features = values.shape
    if scans <= features:
        return np.asarray(np.linalg.eigh(values @ values.T)[1][:, ::-1][:, :factors])
    scores = values @ np.linalg.eigh(values.T @ values)[1][:, ::-1][:, :factors]
    return np.asarray(scores / np.linalg.norm(scores, axis=0))


def _f_test(values: FloatArray, basis: FloatArray, smaller: FloatArray) -> FloatArray:
    """Return the p value of each feature that the larger model explains no more than the smaller one in it."""
    within = (_residuals(values, basis) ** 2).sum(axis=0)
    whole = (_residuals(values, smaller) ** 2).sum(axis=0)
    added, left = basis.shape[1] - smaller.shape[1], len(values) - basis.shape[1]
    statistic = np.maximum(whole - within, 0.0) / added / (within / left)
    return np.asarray(fdtrc(added, left, statistic))
