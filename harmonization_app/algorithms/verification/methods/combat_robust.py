"""Robust ComBat feature by feature, medians and midvariances written out as sums over sorted values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import FeaturePool, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.plain import (
    Bools,
    PlainFit,
    Setting,
    largest_change,
    least_squares,
    passes_through,
)
from harmonization_app.algorithms.verification.pooled import Correction, correct_pools, pool_columns

NORMAL_QUARTILE = statistics.NormalDist().inv_cdf(0.75)


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken."""
    batches = plain_batches(fitted, specification)
    setting = Setting.of(batches, plain_covariates(fitted, specification))
    fit = PlainFit.empty(setting, len(fitted.features))
    standard: dict[int, FloatArray] = {}
    for column, values in enumerate(fitted.values.T):
        fit.left_out[column] = passes_through(values, setting, specification.minimum_scans)
        if not fit.left_out[column]:
            mean, slopes, sd = _regress(values, setting, specification.reference_batch)
            fit.grand_mean[column], fit.slopes[:, column], fit.sd[column] = mean, slopes, sd
            standard[column] = (values - mean - setting.scaled @ slopes) / sd
    steps: dict[str, dict[str, int]] = {}
    for pool, columns in pool_columns(fitted, specification).items():
        usable = [column for column in columns.tolist() if column in standard]
        steps[pool] = {}
        for index, level in enumerate(setting.levels):
            if level == specification.reference_batch or not usable:
                continue
            rows = setting.labels == level
            parts = [_seen(standard[column][rows]) for column in usable]
            same = np.array([len(set(_seen(fitted.values[rows, column]).tolist())) == 1 for column in usable])
            shift, scale, count = _effects(parts, same, specification)
            fit.shift[index, usable], fit.scale[index, usable] = shift, scale
            if specification.eb:
                steps[pool][level] = count
    own = plain_covariates(scans, specification, fitted)
    values = correct_pools(fit, scans.values, plain_batches(scans, specification), own)
    return Correction(values, steps, fit.unchecked)


def _regress(values: FloatArray, setting: Setting, reference: str | None) -> tuple[float, FloatArray, float]:
    """Return grand mean, slopes and robust standard deviation of one feature."""
    mean, slopes, _ = least_squares(values, setting, reference)
    rest = values - setting.scaled @ slopes
    for level in setting.levels:
        rows = setting.labels == level
        rest[rows] -= np.nanmean(rest[rows])
    chosen = rest if reference is None else rest[setting.labels == reference]
    residuals = _seen(chosen).tolist()
    share = (len(residuals) - 1) / len(residuals)
    return mean, slopes, math.sqrt(_midvariance(residuals, statistics.median(residuals)) * share)


def _effects(
    parts: Sequence[FloatArray], same: Bools, specification: Specification
) -> tuple[FloatArray, FloatArray, int]:
    """Return shift and scale of each feature of a pool in one batch, and the number of steps."""
    shift = np.array([statistics.median(part.tolist()) for part in parts])
    scale = np.ones(len(parts))
    if not specification.mean_only:
        for index in np.flatnonzero(~same).tolist():
            scale[index] = _midvariance(parts[index].tolist(), shift[index])
    count = 1
    if specification.eb and specification.mean_only:
        shift = (shift.var(ddof=1) * shift + shift.mean()) / (shift.var(ddof=1) + 1)
    elif specification.eb:
        shift, scale, count = _posterior(parts, shift, scale)
    return shift, np.where(same, 1.0, scale), count


def _posterior(
    parts: Sequence[FloatArray], shift: FloatArray, scale: FloatArray
) -> tuple[FloatArray, FloatArray, int]:
    centre, spread = scale.mean(), scale.var(ddof=1)
    shape = (2 * spread + centre**2) / spread
    rate = (centre * spread + centre**3) / spread
    old_shift, old_scale = shift, scale
    for step in range(1, 10_001):
        new_shift, new_scale = shift.copy(), scale.copy()
        for i, part in enumerate(parts):
            weight = len(part) * shift.var(ddof=1)
            new_shift[i] = (weight * shift[i] + old_scale[i] * shift.mean()) / (weight + old_scale[i])
            squares = (len(part) - 1) * _midvariance(part.tolist(), new_shift[i])
            new_scale[i] = (squares / 2 + rate) / (len(part) / 2 + shape - 1)
        if largest_change(new_shift, old_shift, new_scale, old_scale) <= 1e-4:
            return new_shift, new_scale, step
        old_shift, old_scale = new_shift, new_scale
    raise ArithmeticError("The posterior estimates did not settle in 10,000 steps.")


def _midvariance(values: Sequence[float], centre: float) -> float:
    deviation = statistics.median(abs(value - centre) for value in values)
    cut = 9 / NORMAL_QUARTILE * deviation
    near = [(value - centre, ((value - centre) / cut) ** 2) for value in values]
    above = math.fsum(distance**2 * (1 - u) ** 4 for distance, u in near if u < 1)
    below = math.fsum((1 - u) * (1 - 5 * u) for _, u in near if u < 1)
    return len(values) * above / below**2


def _seen(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    random = np.random.default_rng(19)
    far = random.random(dataset.values.shape) < 0.03
    outlying = dataset.with_values(np.where(far, dataset.values + 2.0, dataset.values))
    plan = PLAIN_SPECIFICATION
    yield Input("outlying_cells", outlying, plan)
    yield Input("clean", dataset, plan)
    yield Input("without_covariates", outlying, replace(plan, covariates=()))
    yield Input("without_eb", outlying, replace(plan, eb=False))
    yield Input("mean_only", outlying, replace(plan, mean_only=True))
    yield Input("reference_batch", outlying, replace(plan, reference_batch="south"))
    pools = (
        FeaturePool("first", dataset.features[:5]),
        FeaturePool("second", dataset.features[5:]),
    )
    yield Input("two_pools", outlying, replace(plan, pools=pools))
    holes = random.random(dataset.values.shape) < 0.05
    yield Input("missing_values", outlying.with_values(np.where(holes, np.nan, outlying.values)), plan)
    flat = outlying.values.copy()
    flat[[batch == "west" for batch in dataset.batches], 3] = 2.5
    yield Input("constant_in_a_batch", outlying.with_values(flat), plan)
    yield Input("apply_new_scans", outlying, plan, new)
