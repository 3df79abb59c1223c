"""The correction of all values in one affine pass: by batch and feature one slope and one offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dgemm

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.algorithms.least_squares import Grouping

CHUNK_FEATURES = 4096
CHUNK_CELLS = 1 << 17


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

    def line(self, batch: int, block: slice) -> tuple[FloatArray, FloatArray]:
        """Return slope [features] and, by covariate column and last the offset, what is added [columns + 1 x features].

        (x - fitted - shift * sd) / sqrt(scale) + fitted, with the fitted value split into grand mean and covariates.
        """
        slope = 1.0 / np.sqrt(self.scale[batch, block])
        kept = 1.0 - slope
        added = np.empty((len(self.coefficients) + 1, len(slope)))
        np.multiply(self.coefficients[:, block], kept, out=added[:-1])
        added[-1] = kept * self.grand_mean[block]
        added[-1] -= self.shift[batch, block] * self.deviation[block] * slope
        return slope, added


def apply_affine(
    values: FloatArray, grouping: Grouping, scaled_covariates: FloatArray, effects: BatchEffects
) -> FloatArray:
    """Return slope * value + offset + (1 - slope) * covariate effect, by batch and feature.

    `scaled_covariates` [scans x columns] are in the rows' order. A batch with scale 1 and shift 0 comes back bit for
    bit.
    """
    result = np.empty_like(values)
    weights = np.hstack([scaled_covariates, np.ones((len(values), 1))])
    features = values.shape[1]
    for batch, first, last in grouping.spans():
        for start in range(0, features, CHUNK_FEATURES):
            block = slice(start, min(start + CHUNK_FEATURES, features))
            height = max(1, CHUNK_CELLS // (block.stop - block.start))
            slope, added = effects.line(batch, block)
            unchanged = not np.any(added) and bool(np.all(slope == 1.0))
            for top in range(first, last, height):
                rows = grouping.rows(top, min(top + height, last))
                if unchanged:
                    result[rows, block] = values[rows, block]
                else:
                    result[rows, block] = _corrected(values[rows, block], slope, weights[rows], added)
    return result


def _corrected(chunk: FloatArray, slope: FloatArray, weights: FloatArray, added: FloatArray) -> FloatArray:
    """Return chunk * slope + weights @ added, the sum taken by BLAS where the product stands."""
    product = np.multiply(chunk, slope, order="C")
    return np.asarray(dgemm(1.0, added.T, weights.T, beta=1.0, c=product.T, overwrite_c=True).T)
