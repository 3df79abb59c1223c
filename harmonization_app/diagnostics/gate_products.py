"""The sample of features the gate judges assumptions on, and its cross products by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.design import Design

MOST_FEATURES = 500


@dataclass(frozen=True, slots=True, eq=False)
class BatchProducts:
    """By batch: means and squares of the values [batches x features], covariate products and cross products."""

    counts: IntArray
    means: FloatArray
    squares: FloatArray
    gram: FloatArray
    cross: FloatArray


def sample_positions(features: int) -> IntArray:
    """Return at most 500 evenly spaced columns of so many."""
    return np.unique(np.linspace(0, features - 1, min(MOST_FEATURES, features)).astype(np.int64))


def sample_features(dataset: Dataset) -> Dataset:
    """Return the table of the features that assumptions are judged on; the same, where those are all."""
    columns = sample_positions(len(dataset.features))
    if len(columns) == len(dataset.features):
        return dataset
    return Dataset(
        dataset.values[:, columns],
        tuple(dataset.features[i] for i in columns),
        dataset.rows,
        dataset.batches,
        dataset.covariates,
        tuple(dataset.units[i] for i in columns),
    )


def sample_columns(values: FloatArray, most: int = MOST_FEATURES) -> IntArray:
    """Return at most so many evenly spaced columns that are complete and vary."""
    chosen = np.unique(np.linspace(0, values.shape[1] - 1, min(most, values.shape[1])).astype(int))
    part = values[:, chosen]
    return np.asarray(chosen[np.isfinite(part).all(axis=0) & (part.std(axis=0) > 0)])


def scaled_covariates(design: Design) -> FloatArray:
    """Return the covariates [scans x columns] with mean 0 and SD 1."""
    centred = design.covariates - design.covariates.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def batch_products(values: FloatArray, design: Design) -> BatchProducts:
    """Return the products of complete, varying `values` [scans x features], standardized over all scans."""
    scaled = scaled_covariates(design)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    parts = []
    for batch in range(len(design.batches)):
        own = design.codes == batch
        x, y = scaled[own], values[own]
        centred, within = y - y.mean(axis=0), x - x.mean(axis=0)
        squares = np.einsum("sf,sf->f", centred, centred)
        parts.append((int(own.sum()), y.mean(axis=0), squares, within.T @ within, within.T @ centred))
    counts, *rest = zip(*parts, strict=True)
    return BatchProducts(np.array(counts), *(np.stack(item) for item in rest))
