"""Location and scale that outlying scans do not move: median and biweight midvariance.

Source of the midvariance: Beers, Flynn, Gebhardt, Astron J 100:32 (1990), equation 9; here its cut-off is nine
robust standard deviations (median absolute deviation over the normal quantile at 3/4), as ComBatFamily has it.
"""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import FloatArray

NORMAL_QUARTILE = 0.6744897501960817
CUT_OFF = 9.0 / NORMAL_QUARTILE
CHUNK_CELLS = 1 << 16


def medians(values: FloatArray) -> FloatArray:
    """Return the median of each row of `values` [features x scans] over the scans that are not NaN."""
    if np.isnan(values).any():
        return np.asarray(np.nanmedian(values, axis=1))
    return np.asarray(np.median(values, axis=1))


def midvariances(values: FloatArray, centres: FloatArray) -> FloatArray:
    """Return the biweight midvariance of each row of `values` [features x scans] about `centres` [features].

    NaN where more than half of a row's scans lie on its centre, so that its median absolute deviation is 0.
    """
    found = np.empty(len(values))
    height = max(1, CHUNK_CELLS // max(values.shape[1], 1))
    for start in range(0, len(values), height):
        rows = slice(start, start + height)
        found[rows] = _midvariances(values[rows], centres[rows])
    return found


def _midvariances(values: FloatArray, centres: FloatArray) -> FloatArray:
    distances = values - centres[:, None]
    deviations = medians(np.abs(distances))
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = (distances / (CUT_OFF * deviations)[:, None]) ** 2
        inside = squares < 1.0
        near = np.where(inside, 1.0 - squares, 0.0)
        spread = np.sum(np.where(inside, distances, 0.0) ** 2 * near**4, axis=1)
        weight = np.sum(near * (1.0 - 5.0 * np.where(inside, squares, 0.0)), axis=1)
        variances = np.sum(~np.isnan(values), axis=1) * spread / weight**2
    return np.where(deviations > 0, variances, np.nan)
