"""The sample of features the gate judges assumptions on, and its cross products by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.kernel import group_rows
from harmonization_app.algorithms.least_squares import centre_within, read_only

MOST_FEATURES = 500
# Features summed together.
WIDTH = 512


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
    part = values if len(chosen) == values.shape[1] else values[:, chosen]
    with np.errstate(invalid="ignore", over="ignore"):
        away = part - part[0]
        squares = np.einsum("sf,sf->f", away, away)
    return np.asarray(chosen[np.isfinite(squares) & (squares > 0)])


def scaled_covariates(design: Design) -> FloatArray:
    """Return the covariates [scans x columns] with mean 0 and SD 1."""
    centred = design.covariates - design.covariates.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def batch_products(values: FloatArray, design: Design) -> BatchProducts:
    """Return the products of complete, varying `values` [scans x features], standardized over all scans."""
    from harmonization_app.algorithms import statistics_loops

    if len(values) != len(design.codes):
        raise ValueError(f"{len(values)} scans of values, {len(design.codes)} scans in the design")
    grouping = group_rows(design.codes, len(design.batches))
    within, _ = centre_within(scaled_covariates(design)[grouping.order], grouping)
    gram = np.stack([within[start:stop].T @ within[start:stop] for _, start, stop in grouping.spans()])
    batches, features, columns = len(design.batches), values.shape[1], within.shape[1]
    means, squares = np.empty((batches, features)), np.empty((batches, features))
    cross = np.empty((batches, columns, features))
    statistics_loops.sum_batches(
        read_only(values),
        grouping.order,
        grouping.starts,
        grouping.stops,
        read_only(within),
        WIDTH,
        means,
        squares,
        cross,
    )
    share = grouping.counts / len(values)
    means -= share @ means
    spread = np.sqrt(squares.sum(axis=0) / len(values) + share @ (means * means))
    return BatchProducts(grouping.counts, means / spread, squares / spread**2, gram, cross / spread)
