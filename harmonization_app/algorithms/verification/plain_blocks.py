"""Plain ComBat for large tables: the least squares of `plain`, by blocks of features, every feature of it.

Independent of the kernel in what matters: batch indicators stand in the design, NumPy's least squares solves it, and
the batches' moments are those of standardized values. Only the shrinkage works on those moments instead of the values,
by sum (x - g)^2 = (n - 1) variance + n (mean - g)^2. Priors are those of all features of a pool. Memory: a few arrays
of a block, and some of [batches x features].

Without parametric priors every feature needs the likelihood of all others; above `NONPARAMETRIC_CELLS` of them a seeded
sample of features is computed, each still with all the others as its prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harmonization_app.algorithms.verification.plain import (
    ROUNDING,
    Array,
    Bools,
    Columns,
    Modes,
    PlainFit,
    Setting,
    largest_change,
    least_squares,
    passes_through,
)

BLOCK_CELLS = 1 << 19
NONPARAMETRIC_CELLS = 4_000_000
NONPARAMETRIC_SAMPLE = 200


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Of standardized values: scans observed, mean, variance (ddof 1) and constancy, [batches x features]."""

    counts: Array
    mean: Array
    variance: Array
    constant: Bools

    @classmethod
    def empty(cls, batches: int, features: int) -> _Moments:
        shape = (batches, features)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool))

    def of(self, batch: int, columns: Columns) -> _Moments:
        """Return the moments of one batch [columns]."""
        parts = (self.counts, self.mean, self.variance, self.constant)
        return _Moments(*(part[batch, columns] for part in parts))


def blocks(scans: int, features: int) -> Iterator[slice]:
    """Yield slices of features that hold about `BLOCK_CELLS` cells each."""
    width = max(1, BLOCK_CELLS // max(scans, 1))
    for start in range(0, features, width):
        yield slice(start, min(start + width, features))


def block_fit(
    values: Array,
    batches: Sequence[str],
    covariates: Array,
    pools: Mapping[str, Columns],
    modes: Modes,
    one_valued: Bools | None = None,
) -> PlainFit:
    """Return what `plain_fit` returns; `values` may be a memory-mapped array [scans x features]."""
    setting = Setting.of(batches, covariates)
    scans, features = values.shape
    fit = PlainFit.empty(setting, features)
    moments = _Moments.empty(len(setting.levels), features)
    for block in blocks(scans, features):
        part = np.asarray(values[:, block])
        _least_squares(part, block, setting, modes, fit)
        _batch_moments(part, block, setting, fit, moments)
    if one_valued is not None:
        np.logical_or(moments.constant, one_valued, out=moments.constant)
    random = np.random.default_rng(modes.seed)
    iterations: dict[str, dict[str, int]] = {name: {} for name in pools}
    for name, columns in pools.items():
        own = columns[~fit.left_out[columns]]
        at = _sample(own.size, modes, random)
        fit.unchecked[np.delete(own, at)] = True
        for index, level in enumerate(setting.levels):
            if level != modes.reference and own.size:
                iterations[name][level] = _shrink(fit, moments.of(index, own), (index, own), at, modes)
    return replace(fit, iterations=iterations)


def _least_squares(part: Array, block: slice, setting: Setting, modes: Modes, fit: PlainFit) -> None:
    """Fill grand mean, slopes and SD of one block: complete features together, those with missing cells one by one."""
    holed = np.isnan(part).any(axis=0)
    left_out = part.min(axis=0) == part.max(axis=0)
    level = np.where(holed, 0.0, part.mean(axis=0))
    centred = np.where(holed, 0.0, part - level)
    solution = np.linalg.lstsq(setting.design, centred, rcond=None)[0]
    residuals = centred - setting.design @ solution
    batches = len(setting.levels)
    shares = np.array([np.mean(setting.labels == name) for name in setting.levels])
    grand_mean, rows = shares @ solution[:batches], np.ones(len(part), dtype=bool)
    if modes.reference is not None:
        grand_mean = solution[setting.levels.index(modes.reference)]
        rows = setting.labels == modes.reference
    grand_mean, slopes, sd = (
        grand_mean + level,
        solution[batches:],
        np.sqrt((residuals[rows] ** 2).mean(axis=0)),
    )
    for column in np.flatnonzero(holed).tolist():
        left_out[column] = passes_through(part[:, column], setting, modes.minimum)
        if not left_out[column]:
            own = least_squares(part[:, column], setting, modes.reference)
            grand_mean[column], slopes[:, column], sd[column] = own
    # A complete feature lacks scans only where a batch is smaller than the minimum, which no gate lets in.
    fit.left_out[block] = left_out
    fit.grand_mean[block] = np.where(left_out, 0.0, grand_mean)
    fit.slopes[:, block] = np.where(left_out, 0.0, slopes)
    fit.sd[block] = np.where(left_out, 1.0, sd)


def _batch_moments(part: Array, block: slice, setting: Setting, fit: PlainFit, moments: _Moments) -> None:
    standard = (part - fit.grand_mean[block] - setting.scaled @ fit.slopes[:, block]) / fit.sd[block]
    for index, level in enumerate(setting.levels):
        own, raw = standard[setting.labels == level], part[setting.labels == level]
        seen = ~np.isnan(own)
        counts = seen.sum(axis=0)
        mean = np.where(seen, own, 0.0).sum(axis=0) / np.maximum(counts, 1)
        squares = np.where(seen, own - mean, 0.0) ** 2
        lowest, highest = np.where(seen, raw, np.inf).min(axis=0), np.where(seen, raw, -np.inf).max(axis=0)
        moments.counts[index, block], moments.mean[index, block] = counts, mean
        moments.variance[index, block] = squares.sum(axis=0) / np.maximum(counts - 1, 1)
        moments.constant[index, block] = (lowest == highest) & (counts > 1)


def _sample(features: int, modes: Modes, random: np.random.Generator) -> Columns:
    """Return all positions, or a seeded sample where every feature against every other is out of reach."""
    everyone = modes.parametric or not modes.eb or features * features <= NONPARAMETRIC_CELLS
    if everyone or features <= NONPARAMETRIC_SAMPLE:
        return np.arange(features)
    return np.sort(random.choice(features, NONPARAMETRIC_SAMPLE, replace=False))


def _shrink(fit: PlainFit, moments: _Moments, where: tuple[int, Columns], at: Columns, modes: Modes) -> int:
    """Fill shift and scale of one batch for the features of a pool, at positions `at`; return the steps taken."""
    index, own = where
    shift, constant = moments.mean, moments.constant
    scale = np.where(constant | (moments.variance <= ROUNDING), 1.0, moments.variance)
    if modes.mean_only:
        scale = np.ones(len(own))
    steps = 1 if modes.eb else 0
    if modes.eb and not modes.parametric:
        shift, scale = _empirical(shift, scale, moments, at)
    elif modes.eb and modes.mean_only:
        spread = shift.var(ddof=1)
        shift = (spread * shift + shift.mean()) / (spread + 1)
    elif modes.eb:
        shift, scale, steps = _posterior(shift, scale, moments)
    if len(shift) == len(own):
        shift, scale = shift[at], scale[at]
    fit.shift[index, own[at]] = shift
    fit.scale[index, own[at]] = 1.0 if modes.mean_only else np.where(constant[at], 1.0, scale)
    return steps


def _posterior(shift: Array, scale: Array, moments: _Moments) -> tuple[Array, Array, int]:
    """Return the parametric posterior means as `plain` does, on moments."""
    counts, variance = moments.counts, moments.variance
    mean, between = shift.mean(), shift.var(ddof=1)
    centre, spread = scale.mean(), scale.var(ddof=1)
    shape = (2 * spread + centre**2) / spread
    rate = (centre * spread + centre**3) / spread
    old_shift, old_scale = shift, scale
    for step in range(1, 10_001):
        new_shift = (counts * between * shift + old_scale * mean) / (counts * between + old_scale)
        squares = (counts - 1) * variance + counts * (shift - new_shift) ** 2
        new_scale = (rate + 0.5 * squares) / (counts / 2 + shape - 1)
        if largest_change(new_shift, old_shift, new_scale, old_scale) <= 1e-4:
            return new_shift, new_scale, step
        old_shift, old_scale = new_shift, new_scale
    raise ArithmeticError("The posterior means did not settle in 10,000 steps.")


def _empirical(shift: Array, scale: Array, moments: _Moments, at: Columns) -> tuple[Array, Array]:
    """Return the posterior means of the features at positions `at` under the empirical prior of all the others."""
    counts, variance = moments.counts, moments.variance
    new_shift, new_scale = np.empty(len(at)), np.empty(len(at))
    for position, i in enumerate(at.tolist()):
        others = np.flatnonzero(np.arange(len(shift)) != i)
        squares = (counts[i] - 1) * variance[i] + counts[i] * (shift[i] - shift[others]) ** 2
        logs = -0.5 * counts[i] * np.log(2 * math.pi * scale[others]) - squares / (2 * scale[others])
        weights = np.exp(logs - logs.max())
        new_shift[position] = np.sum(weights * shift[others]) / weights.sum()
        new_scale[position] = np.sum(weights * scale[others]) / weights.sum()
    return new_shift, new_scale
