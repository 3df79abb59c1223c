"""ComBat written plainly, feature by feature, as a second implementation to hold the kernel against.

It shares no code with the kernel: full indicator design, one least-squares solution per feature, sums as the
papers print them (Johnson, Li, Rabinovic, Biostatistics 8:118 (2007), sections 3.1 to 3.3; Fortin et al.
2017). It is slow and needs the memory of several copies of the data; `plain_blocks` has the same for large tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Columns = npt.NDArray[np.int64]

# A covariate that varies less than this part of its own SD, or that the others explain to it, determines nothing.
LEAST_VARIANCE = 1e-10
# A batch's residual variance, in pooled ones, that is nothing but rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Modes:
    """How ComBat is to be computed; `minimum` is the fewest observed scans of a feature in a batch, `seed` draws the
    sample of features where not all can be computed.
    """

    eb: bool = True
    parametric: bool = True
    mean_only: bool = False
    reference: str | None = None
    minimum: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Batches of the scans, sorted levels, and covariates less their mean over their SD [scans x columns]."""

    labels: npt.NDArray[np.str_]
    levels: tuple[str, ...]
    middle: Array
    width: Array
    scaled: Array

    @classmethod
    def of(cls, batches: Sequence[str], covariates: Array) -> Setting:
        spread = covariates.std(axis=0)
        middle, width = covariates.mean(axis=0), np.where(spread > 0, spread, 1.0)
        scaled = (covariates - middle) / width
        return cls(np.array(batches), tuple(sorted(set(batches))), middle, width, scaled)

    @property
    def design(self) -> Array:
        """Batch indicators and covariates [scans x columns]."""
        return np.hstack([(self.labels[:, None] == np.array(self.levels)).astype(float), self.scaled])


@dataclass(frozen=True, slots=True, eq=False)
class PlainFit:
    """The fitted parameters of every feature, for `plain_correct`.

    `grand_mean`, `sd` [features] and `slopes` [columns x features] belong to covariates less `middle` over `width`;
    `shift` and `scale` are [batches x features]; `left_out` marks features that pass through; `iterations` counts
    steps by pool and batch; `unchecked` marks features whose shift and scale were not computed.
    """

    batches: tuple[str, ...]
    middle: Array
    width: Array
    grand_mean: Array
    slopes: Array
    sd: Array
    shift: Array
    scale: Array
    left_out: Bools
    unchecked: Bools
    iterations: Mapping[str, Mapping[str, int]]

    @classmethod
    def empty(cls, setting: Setting, features: int) -> PlainFit:
        """Return arrays to be filled, of a fit that changes nothing."""
        batches, columns = len(setting.levels), setting.scaled.shape[1]
        return cls(
            setting.levels,
            setting.middle,
            setting.width,
            np.zeros(features),
            np.zeros((columns, features)),
            np.ones(features),
            np.zeros((batches, features)),
            np.ones((batches, features)),
            np.zeros(features, dtype=bool),
            np.zeros(features, dtype=bool),
            {},
        )


@dataclass(frozen=True, slots=True, eq=False)
class PlainResult:
    """Harmonized values [scans x features] of one pool, steps by batch and the fit for `plain_apply`."""

    values: Array
    iterations: Mapping[str, int]
    fit: PlainFit


# A feature's values, the setting and the reference batch to grand mean, slopes and pooled standard deviation.
Solve = Callable[[Array, Setting, str | None], tuple[float, Array, float]]


def plain_combat(values: Array, batches: Sequence[str], covariates: Array, **modes: Any) -> PlainResult:
    """Return `values` [scans x features] harmonized over `batches`, preserving `covariates` [scans x columns], with
    one pool of all features. `modes` are those of `Modes`.
    """
    pools = {"all": np.arange(values.shape[1])}
    fit = plain_fit(values, batches, covariates, pools, Modes(**modes))
    return PlainResult(plain_correct(fit, values, batches, covariates), fit.iterations["all"], fit)


def plain_apply(result: PlainResult, values: Array, batches: Sequence[str], covariates: Array) -> Array:
    """Return new scans of known batches corrected by the parameters of `result`, with their own covariates."""
    return plain_correct(result.fit, values, batches, covariates)


def plain_fit(
    values: Array,
    batches: Sequence[str],
    covariates: Array,
    pools: Mapping[str, Columns],
    modes: Modes,
    solve: Solve | None = None,
    one_valued: Bools | None = None,
) -> PlainFit:
    """Return the parameters; `pools` are the columns that share priors, each column in one of them; `solve` fits a
    feature otherwise than by least squares; `one_valued` [batches x features] had one value in a batch as measured.

    A feature with one value in all scans, with fewer than the minimum of observed scans in a batch, or whose observed
    scans do not determine the covariates' effects is left out.
    """
    setting = Setting.of(batches, covariates)
    fit = PlainFit.empty(setting, values.shape[1])
    standard: dict[int, Array] = {}
    for column, own in enumerate(values.T):
        fit.left_out[column] = passes_through(own, setting, modes.minimum)
        if not fit.left_out[column]:
            mean, slopes, sd = (solve or least_squares)(own, setting, modes.reference)
            fit.grand_mean[column], fit.slopes[:, column], fit.sd[column] = mean, slopes, sd
            standard[column] = (own - mean - setting.scaled @ slopes) / sd
    iterations: dict[str, dict[str, int]] = {name: {} for name in pools}
    for name, columns in pools.items():
        usable = [column for column in columns.tolist() if column in standard]
        for index, level in enumerate(setting.levels):
            if level == modes.reference or not usable:
                continue
            rows = setting.labels == level
            observed = [_observed(standard[column][rows]) for column in usable]
            constant = np.array([_constant(values[rows, column]) for column in usable])
            if one_valued is not None:
                constant = constant | one_valued[index, usable]
            shift, scale, iterations[name][level] = batch_effects(observed, constant, modes)
            fit.shift[index, usable], fit.scale[index, usable] = shift, scale
    return replace(fit, iterations=iterations)


def plain_correct(
    fit: PlainFit,
    values: Array,
    batches: Sequence[str],
    covariates: Array,
    columns: slice = slice(None),
) -> Array:
    """Return scans of known batches corrected, each with its own covariates; `values` holds the features `columns`
    of the fit, [scans x columns].
    """
    corrected = values.copy()
    labels = np.array(batches)
    fitted = plain_fitted(fit, covariates, columns)
    sd, left_out = fit.sd[columns], fit.left_out[columns]
    for index, level in enumerate(fit.batches):
        rows = np.flatnonzero(labels == level)
        standard = (values[rows] - fitted[rows]) / sd
        adjusted = (standard - fit.shift[index, columns]) / np.sqrt(fit.scale[index, columns])
        corrected[rows] = np.where(left_out, values[rows], adjusted * sd + fitted[rows])
    return corrected


def plain_fitted(fit: PlainFit, covariates: Array, columns: slice = slice(None)) -> Array:
    """Return the fitted values without batch effects [scans x columns]."""
    scaled = (covariates - fit.middle) / fit.width
    return np.asarray(fit.grand_mean[columns] + scaled @ fit.slopes[:, columns])


def passes_through(column: Array, setting: Setting, minimum: int) -> bool:
    """Return whether a feature cannot be harmonized: constant, too few scans in a batch, covariates undetermined."""
    seen = ~np.isnan(column)
    own = [seen & (setting.labels == level) for level in setting.levels]
    if _constant(column) or any(rows.sum() < max(minimum, 1) for rows in own):
        return True
    if not setting.scaled.shape[1] or seen.all():
        return False
    within = np.vstack([setting.scaled[rows] - setting.scaled[rows].mean(axis=0) for rows in own])
    lengths = np.linalg.norm(within, axis=0)
    if np.any(lengths**2 <= LEAST_VARIANCE * seen.sum()):
        return True
    return bool(np.linalg.svd(within / lengths, compute_uv=False)[-1] ** 2 <= LEAST_VARIANCE)


def least_squares(column: Array, setting: Setting, reference: str | None) -> tuple[float, Array, float]:
    """Return one feature's grand mean, slopes and pooled standard deviation."""
    levels, labels = setting.levels, setting.labels
    seen = ~np.isnan(column)
    # The mean is taken off first and put back, so that values far from zero keep their digits.
    level = float(column[seen].mean())
    column = column - level
    coefficients = np.linalg.lstsq(setting.design[seen], column[seen], rcond=None)[0]
    intercepts, slopes = coefficients[: len(levels)], coefficients[len(levels) :]
    residuals = column - setting.design @ coefficients
    if reference is None:
        shares = [float(np.mean(labels == name)) for name in levels]
        grand_mean = sum(share * b for share, b in zip(shares, intercepts.tolist(), strict=True))
        variance = np.mean(residuals[seen] ** 2)
    else:
        grand_mean = float(intercepts[levels.index(reference)])
        variance = np.mean(residuals[seen & (labels == reference)] ** 2)
    return float(grand_mean) + level, np.asarray(slopes, dtype=np.float64), math.sqrt(variance)


def _observed(column: Array) -> Array:
    return column[~np.isnan(column)]


def _constant(column: Array) -> bool:
    observed = _observed(column)
    return bool(observed.size > 1 and np.all(observed == observed[0]))


def batch_effects(observed: Sequence[Array], constant: Bools, modes: Modes) -> tuple[Array, Array, int]:
    """Return shift and scale of each feature of a pool in one batch, and the number of steps taken."""
    shift = np.array([part.mean() for part in observed])
    scale = np.ones(len(observed))
    if not modes.mean_only:
        scale = np.array([part.var(ddof=1) for part in observed])
        scale = np.where(constant | (scale <= ROUNDING), 1.0, scale)
    steps = 0
    if modes.eb and not modes.parametric:
        shift, scale = _empirical(observed, shift, scale)
        steps = 1
    elif modes.eb and modes.mean_only:
        shift = (shift.var(ddof=1) * shift + shift.mean()) / (shift.var(ddof=1) + 1)
        steps = 1
    elif modes.eb:
        shift, scale, steps = _posterior(observed, shift, scale)
    if modes.mean_only:
        scale = np.ones(len(observed))
    return shift, np.where(constant, 1.0, scale), steps


def _posterior(observed: Sequence[Array], shift: Array, scale: Array) -> tuple[Array, Array, int]:
    """Return the parametric posterior means by iterating equations 3.1 of the paper until the published
    stop.
    """
    mean, variance = shift.mean(), shift.var(ddof=1)
    centre, spread = scale.mean(), scale.var(ddof=1)
    shape = (2 * spread + centre**2) / spread
    rate = (centre * spread + centre**3) / spread
    old_shift, old_scale = shift, scale
    for step in range(1, 10_001):
        new_shift, new_scale = np.empty_like(shift), np.empty_like(scale)
        for i, values in enumerate(observed):
            n = len(values)
            new_shift[i] = (n * variance * shift[i] + old_scale[i] * mean) / (n * variance + old_scale[i])
            squares = float(np.sum((values - new_shift[i]) ** 2))
            new_scale[i] = (rate + 0.5 * squares) / (n / 2 + shape - 1)
        if largest_change(new_shift, old_shift, new_scale, old_scale) <= 1e-4:
            return new_shift, new_scale, step
        old_shift, old_scale = new_shift, new_scale
    raise ArithmeticError("The posterior means did not settle in 10,000 steps.")


def largest_change(new_shift: Array, old_shift: Array, new_scale: Array, old_scale: Array) -> float:
    """Return the largest change relative to the old value, divided by it with its sign as published; a value that
    stays 0 has not changed.
    """
    changes = []
    for new, old in ((new_shift, old_shift), (new_scale, old_scale)):
        moved = new != old
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.abs(new[moved] - old[moved]) / old[moved]
        changes.append(float(np.max(relative, initial=-np.inf)))
    return max(changes)


def _empirical(observed: Sequence[Array], shift: Array, scale: Array) -> tuple[Array, Array]:
    """Return the posterior means under the empirical prior of the other features, by log-likelihoods."""
    new_shift, new_scale = np.empty_like(shift), np.empty_like(scale)
    for i, values in enumerate(observed):
        others = np.flatnonzero(np.arange(len(observed)) != i)
        squares = np.array([float(np.sum((values - shift[j]) ** 2)) for j in others])
        logs = -0.5 * len(values) * np.log(2 * math.pi * scale[others]) - squares / (2 * scale[others])
        weights = np.exp(logs - logs.max())
        new_shift[i] = np.sum(weights * shift[others]) / weights.sum()
        new_scale[i] = np.sum(weights * scale[others]) / weights.sum()
    return new_shift, new_scale
