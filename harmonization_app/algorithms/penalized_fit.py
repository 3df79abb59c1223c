"""Least squares with batch indicators, plain covariates and penalized smooths, for all features at once.

Batches and plain columns are eliminated first and the penalized columns made orthonormal, so that choosing the
penalties of a feature needs its few projections only, and residuals follow without solving again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from harmonization_app.algorithms.base import BoolArray, FloatArray, IntArray
from harmonization_app.algorithms.kernel import Grouping, Statistics, blocks, constant_columns, group_rows
from harmonization_app.algorithms.missing_cells import undetermined
from harmonization_app.algorithms.penalty import Problem, factorize

# Residuals below this part of a feature's spread are rounding; no penalty is searched for such a feature.
EXACT_RATIO = 1e-22

# A problem and the scans it rests on to the logarithms of the penalties [smooths x features].
Select = Callable[[Problem, IntArray], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of the covariate model [scans x columns] and which of them each smooth penalizes.

    `smooths` are slices of the penalized columns, after all others; `penalties` their matrices in the columns'
    own units.
    """

    values: FloatArray
    smooths: tuple[slice, ...]
    penalties: tuple[FloatArray, ...]

    @property
    def plain(self) -> int:
        return self.smooths[0].start if self.smooths else self.values.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class PenalizedFit:
    """Summaries as of kernel.fit_statistics, with `log_penalties` and `freedom` [smooths x features].

    `freedom` counts the effective degrees of freedom of each smooth with its straight line; both are NaN where a
    feature has no variance.
    """

    statistics: Statistics
    log_penalties: FloatArray
    freedom: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Basis:
    """The columns within batches, scans sorted by batch: `plain` and `bent` are orthonormal and orthogonal.

    `plain_back` turns projections on `plain` into coefficients, `bent_back` those on `bent`; `carried` [plain
    columns x bent columns] is what a bent coefficient takes off the plain ones; `roots` see Problem.
    """

    batch_centres: FloatArray
    plain: FloatArray
    bent: FloatArray
    plain_back: FloatArray
    bent_back: FloatArray
    carried: FloatArray
    roots: tuple[FloatArray, ...]


def fit(values: FloatArray, grouping: Grouping, columns: Columns, select: Select) -> PenalizedFit:
    """Return the summaries of `values` [scans x features]; `select` gives the log penalties of a problem.

    A feature with missing cells is fitted on the scans that show it, with the columns of all scans: its penalties are
    chosen on those scans alone. It is unusable where a batch has none of them, or they do not determine the columns.
    """
    result = _empty_fit(columns, grouping, values.shape[1])
    seen = ~np.isnan(values)
    complete = seen.all(axis=0)
    if complete.any():
        _fit_features(values, np.flatnonzero(complete), grouping.order, grouping, columns, select, result)
    codes = np.repeat(np.arange(len(grouping.starts)), grouping.counts)
    for features in _alike(seen, np.flatnonzero(~complete)):
        shown = seen[grouping.order, features[0]]
        own = group_rows(codes[shown], len(grouping.starts))
        result.statistics.counts[:, features] = own.counts[:, None]
        _fit_features(values, features, grouping.order[shown], own, columns, select, result)
    return result


def _alike(seen: BoolArray, features: IntArray) -> list[IntArray]:
    """Return those of `features` that the same scans show, together."""
    found: dict[bytes, list[int]] = {}
    for feature in features.tolist():
        found.setdefault(seen[:, feature].tobytes(), []).append(feature)
    return [np.array(own, dtype=np.int64) for own in found.values()]


def _empty_fit(columns: Columns, grouping: Grouping, features: int) -> PenalizedFit:
    """Return a fit to be filled in, `counts` those of complete features."""
    batches = len(grouping.starts)
    centre, scale = _location(columns)
    statistics = Statistics(
        intercepts=np.zeros((batches, features)),
        coefficients=np.zeros((columns.values.shape[1], features)),
        residual_squares=np.zeros((batches, features)),
        counts=np.repeat(grouping.counts[:, None].astype(np.float64), features, axis=1),
        constant=np.zeros((batches, features), dtype=np.bool_),
        uniform=np.zeros(features, dtype=np.bool_),
        unusable=np.zeros(features, dtype=np.bool_),
        centre=centre,
        scale=scale,
    )
    shape = (len(columns.smooths), features)
    return PenalizedFit(statistics, np.full(shape, np.nan), np.full(shape, np.nan))


def _fit_features(
    values: FloatArray,
    features: IntArray,
    scans: IntArray,
    grouping: Grouping,
    columns: Columns,
    select: Select,
    result: PenalizedFit,
) -> None:
    """Fill in `features` from `scans`, which all show them and are in the order of batches, as `grouping` has them."""
    statistics = result.statistics
    basis = _orthonormal(columns, scans, grouping, statistics)
    statistics.unusable[features] = basis is None
    for part in blocks(len(features), len(scans)):
        own = features[part]
        gathered = values[scans[:, None], own]
        for batch, start, stop in grouping.spans():
            statistics.constant[batch, own] = constant_columns(gathered[start:stop])
        statistics.uniform[own] = constant_columns(gathered)
        if basis is not None:
            _fit_block(gathered, own, scans, grouping, basis, columns, select, result)


def _fit_block(
    gathered: FloatArray,
    features: IntArray,
    scans: IntArray,
    grouping: Grouping,
    basis: _Basis,
    columns: Columns,
    select: Select,
    result: PenalizedFit,
) -> None:
    statistics = result.statistics
    variances = gathered.var(axis=0)
    means, residuals = _within_batches(gathered, grouping)
    on_plain = basis.plain.T @ residuals
    residuals -= basis.plain @ on_plain
    signals = basis.bent.T @ residuals
    residuals -= basis.bent @ signals
    unexplained = np.einsum("sf,sf->f", residuals, residuals)
    usable = ~statistics.uniform[features] & (unexplained > EXACT_RATIO * len(gathered) * variances)
    kept = signals.copy()
    if usable.any():
        problem = Problem(
            basis.roots,
            signals[:, usable],
            unexplained[usable],
            variances[usable],
            len(gathered),
            len(grouping.starts) + columns.plain,
        )
        log_penalties = select(problem, scans)
        kept[:, usable] = problem.coefficients(log_penalties)
        result.log_penalties[:, features[usable]] = log_penalties
        result.freedom[:, features[usable]] = _freedom(basis, columns, log_penalties)
    residuals += basis.bent @ (signals - kept)
    np.multiply(residuals, residuals, out=residuals)
    for batch, start, stop in grouping.spans():
        statistics.residual_squares[batch, features] = residuals[start:stop].sum(axis=0)
    bent = basis.bent_back @ kept
    coefficients = np.vstack([basis.plain_back @ on_plain - basis.carried @ bent, bent])
    statistics.coefficients[:, features] = coefficients
    statistics.intercepts[:, features] = means - basis.batch_centres @ coefficients


def _orthonormal(
    columns: Columns, scans: IntArray, grouping: Grouping, statistics: Statistics
) -> _Basis | None:
    """Return the columns of `scans` within batches; None where a batch has no scan or they do not tell them apart."""
    if (grouping.counts == 0).any():
        return None
    scale = statistics.scale
    batch_centres, within = _within_batches(((columns.values - statistics.centre) / scale)[scans], grouping)
    if not _told_apart(within):
        return None
    plain, plain_triangle = np.linalg.qr(within[:, : columns.plain])
    bent = within[:, columns.plain :]
    carried = np.zeros((columns.plain, bent.shape[1]))
    # Twice, so that the penalized columns are orthogonal to the plain ones to the last digit.
    for _ in range(2):
        share = plain.T @ bent
        bent = bent - plain @ share
        carried += share
    bent, triangle = np.linalg.qr(bent)
    plain_back = scipy.linalg.solve_triangular(plain_triangle, np.eye(columns.plain))
    back = scipy.linalg.solve_triangular(triangle, np.eye(len(triangle)))
    roots = []
    for smooth, penalty in zip(columns.smooths, columns.penalties, strict=True):
        rows = slice(smooth.start - columns.plain, smooth.stop - columns.plain)
        root = np.linalg.cholesky(penalty / np.outer(scale[smooth], scale[smooth]))
        roots.append(back[rows].T @ root)
    if len(roots) == 1:
        rotation, singular, _ = np.linalg.svd(roots[0])
        bent, back, roots = bent @ rotation, back @ rotation, [np.diag(singular)]
    return _Basis(
        batch_centres=batch_centres,
        plain=plain,
        bent=bent,
        plain_back=plain_back,
        bent_back=back,
        carried=plain_back @ carried,
        roots=tuple(roots),
    )


def are_determined(columns: Columns, grouping: Grouping) -> bool:
    """Return whether all scans together tell the columns from each other and from the batches, without any penalty."""
    centre, scale = _location(columns)
    return _told_apart(_within_batches(((columns.values - centre) / scale)[grouping.order], grouping)[1])


def _told_apart(within: FloatArray) -> bool:
    return not undetermined((within.T @ within)[None], np.array([float(len(within))]))[0]


def _location(columns: Columns) -> tuple[FloatArray, FloatArray]:
    """Return the mean and the SD of each column, 1 where it does not vary."""
    centre, scale = columns.values.mean(axis=0), columns.values.std(axis=0)
    scale[scale == 0] = 1.0
    return centre, scale


def _within_batches(values: FloatArray, grouping: Grouping) -> tuple[FloatArray, FloatArray]:
    """Return the means [batches x columns] of rows sorted by batch, and the rows without their batch's mean."""
    means = np.empty((len(grouping.starts), values.shape[1]))
    within = np.empty(values.shape)
    for batch, start, stop in grouping.spans():
        means[batch] = values[start:stop].mean(axis=0)
        np.subtract(values[start:stop], means[batch], out=within[start:stop])
    return means, within


def _freedom(basis: _Basis, columns: Columns, log_penalties: FloatArray) -> FloatArray:
    """Return the effective degrees of freedom [smooths x features], the straight lines counted."""
    if len(columns.smooths) == 1:
        strengths = np.diag(basis.roots[0])[:, None] ** 2
        return 1.0 + np.sum(1.0 / (1.0 + np.exp(log_penalties) * strengths), axis=0, keepdims=True)
    forward = np.linalg.inv(basis.bent_back)
    found = np.empty(log_penalties.shape)
    for feature, own in enumerate(log_penalties.T):
        inverse = factorize(basis.roots, own).inverse
        shares = np.diag(basis.bent_back @ inverse @ inverse.T @ forward)
        for smooth, columns_of in enumerate(columns.smooths):
            rows = slice(columns_of.start - columns.plain, columns_of.stop - columns.plain)
            found[smooth, feature] = 1.0 + shares[rows].sum()
    return found
