"""The correction of all values in one affine pass: by batch and feature one slope and one offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.algorithms.least_squares import Grouping, read_only
from harmonization_app.algorithms.threads import spread

CHUNK_FEATURES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class BatchEffects:
    """What is taken off: `shift` and `scale` [batches x features] about `grand_mean` [features], in units of
    `deviation` [features], the covariates' `coefficients` [columns x features] kept.
    """

    shift: FloatArray
    scale: FloatArray
    deviation: FloatArray
    grand_mean: FloatArray
    coefficients: FloatArray


def apply_affine(
    values: FloatArray, grouping: Grouping, scaled_covariates: FloatArray, effects: BatchEffects
) -> FloatArray:
    """Return slope * value + offset + (1 - slope) * covariate effect, by batch and feature.

    `scaled_covariates` [scans x columns] are in the rows' order. A batch with scale 1 and shift 0 comes back bit for
    bit.
    """
    from harmonization_app.algorithms import correction_loops

    _require_shapes(values, grouping, scaled_covariates, effects)
    result = np.empty(values.shape)
    lacking = -scaled_covariates.shape[1] % correction_loops.TOGETHER
    weights = np.hstack([scaled_covariates, np.zeros((len(values), lacking))])
    table, *parameters = [
        read_only(part)
        for part in (
            values,
            effects.shift,
            effects.scale,
            effects.deviation,
            effects.grand_mean,
            effects.coefficients,
            weights,
        )
    ]

    def correct(first: int, last: int) -> None:
        correction_loops.correct(
            table,
            grouping.order,
            grouping.starts,
            grouping.stops,
            *parameters,
            first,
            last,
            CHUNK_FEATURES,
            result,
        )

    spread(correct, values.shape[1], CHUNK_FEATURES)
    return result


def _require_shapes(
    values: FloatArray, grouping: Grouping, scaled_covariates: FloatArray, effects: BatchEffects
) -> None:
    """Raise ValueError where the arrays do not belong together: compiled loops would read beside them."""
    scans, features = values.shape
    columns = len(effects.coefficients)
    expected = {
        "order": (grouping.order, (scans,)),
        "covariates": (scaled_covariates, (scans, columns)),
        "shift": (effects.shift, (len(grouping.starts), features)),
        "scale": (effects.scale, (len(grouping.starts), features)),
        "deviation": (effects.deviation, (features,)),
        "grand mean": (effects.grand_mean, (features,)),
        "coefficients": (effects.coefficients, (columns, features)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, the values need {shape}")
