"""Standardized differences between groups (diagnosis, sex) before, after and adjusted for batch.

A difference is the coefficient of the level against the reference level over the residual SD of its own stage: what a
trial's power rests on. Its interval is that of the coefficient; the residual SD is taken as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.diagnostics.covariate_effects import (
    ADJUSTED,
    AFTER,
    CovariateEffects,
    Estimates,
    agreement,
    summary,
)


def group_contrasts(
    effects: CovariateEffects, coding: CovariateCoding, listed: Sequence[int] | IntArray
) -> list[dict[str, Any]]:
    """Return one entry per level of each categorical covariate, features `listed` one by one; see effects.py."""
    entries = []
    for row, (name, level) in enumerate(coding.columns):
        if level is None:
            continue
        stages = {stage: _standardized(own, row) for stage, own in effects.stages.items()}
        entries.append(
            {
                "covariate": name,
                "level": level,
                "reference": coding.levels[name][0],
                "features": int(np.isfinite(stages[ADJUSTED].value).sum()),
                "stages": {stage: summary(own, 0) for stage, own in stages.items()},
                "agreement": agreement(stages[AFTER], stages[ADJUSTED], 0),
                "listed": [_feature(effects.features[i], stages, int(i)) for i in listed],
            }
        )
    return entries


def _standardized(own: Estimates, row: int) -> Estimates:
    """Return one row's estimates over the residual SD, as [1 x features]."""
    spread = np.where(own.deviation > 0, own.deviation, np.nan)

    def over(table: FloatArray) -> FloatArray:
        return np.asarray(table[row : row + 1] / spread)

    return Estimates(over(own.value), over(own.error), over(own.low), over(own.high), np.ones_like(spread))


def _feature(name: str, stages: dict[str, Estimates], index: int) -> dict[str, Any]:
    found: dict[str, Any] = {"feature": name}
    for stage, own in stages.items():
        cells = {key: float(getattr(own, key)[0, index]) for key in ("value", "error", "low", "high")}
        found[stage] = {key: cell if np.isfinite(cell) else None for key, cell in cells.items()}
    return found
