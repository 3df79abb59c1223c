"""The correction of all values of `affine`, compiled.

Plain loops over features within loops over scans: they need no temporary of the table's size and read each cell from
memory once or twice. Every feature is computed by itself, in one order of operations and without fused or reordered
arithmetic, so that its bits depend neither on the features beside it, nor on threads, nor on the processor.
"""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.algorithms.compiled import compiled

# Covariate columns that are added together.
TOGETHER = 3


@compiled
def correct(
    values: FloatArray,
    order: IntArray,
    starts: IntArray,
    stops: IntArray,
    shift: FloatArray,
    scale: FloatArray,
    deviation: FloatArray,
    grand_mean: FloatArray,
    coefficients: FloatArray,
    weights: FloatArray,
    first: int,
    last: int,
    width: int,
    result: FloatArray,
) -> None:
    """Fill `result` for the features from `first` to `last`, `width` of them at a time.

    (x - fitted - shift * deviation) / sqrt(scale) + fitted, as slope * x + what is added, with the fitted value split
    into grand mean and covariates. `weights` [scans x columns, in the rows' order] is filled up with columns of zeros
    to a multiple of `TOGETHER`. A batch with scale 1 and shift 0 is copied.
    """
    columns = weights.shape[1]
    slope, base, added = np.empty(width), np.empty(width), np.zeros((columns, width))
    for begin in range(first, last, width):
        end = min(begin + width, last)
        for batch in range(len(starts)):
            unchanged = _line(
                shift[batch, begin:end],
                scale[batch, begin:end],
                deviation[begin:end],
                grand_mean[begin:end],
                coefficients[:, begin:end],
                slope,
                base,
                added,
            )
            for at in range(starts[batch], stops[batch]):
                row = order[at]
                if unchanged:
                    for feature in range(begin, end):
                        result[row, feature] = values[row, feature]
                else:
                    _correct_scan(
                        values[row, begin:end], slope, base, added, weights[row], result[row, begin:end]
                    )


@compiled
def _line(
    shift: FloatArray,
    scale: FloatArray,
    deviation: FloatArray,
    grand_mean: FloatArray,
    coefficients: FloatArray,
    slope: FloatArray,
    base: FloatArray,
    added: FloatArray,
) -> bool:
    """Set slope, offset and what is added by covariate; return whether they leave everything as it is."""
    size = len(shift)
    moved = 0
    for i in range(size):
        slope[i] = 1.0 / np.sqrt(scale[i])
        base[i] = (1.0 - slope[i]) * grand_mean[i] - shift[i] * deviation[i] * slope[i]
        moved += (slope[i] != 1.0) | (base[i] != 0.0)
    for column in range(len(coefficients)):
        own, line = coefficients[column], added[column]
        for i in range(size):
            line[i] = own[i] * (1.0 - slope[i])
            moved += line[i] != 0.0
    return moved == 0


@compiled
def _correct_scan(
    value: FloatArray,
    slope: FloatArray,
    base: FloatArray,
    added: FloatArray,
    weights: FloatArray,
    result: FloatArray,
) -> None:
    size = len(value)
    if len(weights) == 0:
        for i in range(size):
            result[i] = value[i] * slope[i] + base[i]
    for k in range(0, len(weights), TOGETHER):
        p, q, r = weights[k], weights[k + 1], weights[k + 2]
        one, two, three = added[k], added[k + 1], added[k + 2]
        if k == 0:
            for i in range(size):
                result[i] = (value[i] * slope[i] + base[i]) + ((p * one[i] + q * two[i]) + r * three[i])
        else:
            for i in range(size):
                result[i] += (p * one[i] + q * two[i]) + r * three[i]
