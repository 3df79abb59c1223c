"""Effects of the preserved covariates before, after and adjusted for batch, with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.diagnostics.regression import Regression, regress

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A coefficient per unit of the covariate, its confidence interval and t; None where not estimable."""

    value: float | None
    low: float | None
    high: float | None
    t: float | None


@dataclass(frozen=True, slots=True)
class CovariateEffect:
    """One covariate column on one feature.

    `before` and `after` leave batch out of the model, `batch_adjusted` has it in, on the values before. `preserved`
    tells whether the estimate after lies in the interval of the batch-adjusted one.
    """

    feature: str
    covariate: str
    before: Estimate
    after: Estimate
    batch_adjusted: Estimate
    preserved: bool | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def covariate_effects(
    before: FloatArray,
    after: FloatArray,
    codes: IntArray,
    covariates: FloatArray,
    names: Sequence[str],
    features: Sequence[str],
) -> tuple[CovariateEffect, ...]:
    """Return the effects of each covariate column `names` on each feature; arrays are [scans x ...]."""
    if not names:
        return ()
    centred = covariates - covariates.mean(axis=0)
    plain = np.hstack([np.ones((len(before), 1)), centred])
    with_batch = np.hstack([np.eye(int(codes.max()) + 1)[codes], centred])
    fits = [regress(plain, before), regress(plain, after), regress(with_batch, before)]
    effects = []
    for column, name in enumerate(names):
        rows = [column - len(names)] * 3
        stages = [_estimates(fit, row) for fit, row in zip(fits, rows, strict=True)]
        for feature, own_before, own_after, adjusted in zip(features, *stages, strict=True):
            inside = _inside(own_after, adjusted)
            effects.append(CovariateEffect(feature, name, own_before, own_after, adjusted, inside))
    return tuple(effects)


def _estimates(fit: Regression, row: int) -> list[Estimate]:
    value, error = fit.coefficients[row], fit.errors[row]
    with np.errstate(invalid="ignore", divide="ignore"):
        margin = stats.t.ppf(0.5 + CONFIDENCE / 2, fit.degrees) * error
        t = value / error
    table = np.stack([value, value - margin, value + margin, t], axis=1)
    return [Estimate(*(float(cell) if math.isfinite(cell) else None for cell in row)) for row in table]


def _inside(after: Estimate, adjusted: Estimate) -> bool | None:
    if after.value is None or adjusted.low is None or adjusted.high is None:
        return None
    return adjusted.low <= after.value <= adjusted.high
