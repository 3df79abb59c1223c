"""Principal components of the scans, to see batches apart or together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray

COMPONENTS = 5


@dataclass(frozen=True, slots=True)
class Projection:
    """Scores [scans][components] on standardized complete features, explained variance, share between batches.

    The sign of each component is set so that its largest loading is positive.
    """

    rows: tuple[str, ...]
    batches: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    explained: tuple[float, ...]
    between_batches: tuple[float, ...]
    features: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def project(
    values: FloatArray, codes: IntArray, batches: Sequence[str], rows: Sequence[str], columns: FloatArray
) -> Projection | None:
    """Return the projection of `values` [scans x features] on their first components, by the scans' Gram matrix.

    `columns` marks the features to use (complete and not constant, the same before and after). None where fewer
    than two features or three scans remain.
    """
    index = np.flatnonzero(columns)
    if len(index) < 2 or len(values) < 3:
        return None
    standard = values[:, index]
    standard = (standard - standard.mean(axis=0)) / standard.std(axis=0, ddof=1)
    eigenvalues, vectors = np.linalg.eigh(standard @ standard.T)
    order = np.argsort(eigenvalues)[::-1][: min(COMPONENTS, len(index), len(values) - 1)]
    scores = vectors[:, order] * np.sqrt(np.maximum(eigenvalues[order], 0.0))
    loadings = standard.T @ vectors[:, order]
    largest = np.abs(loadings).argmax(axis=0)
    scores *= np.where(loadings[largest, np.arange(len(order))] < 0, -1.0, 1.0)
    explained = eigenvalues[order] / max(float(eigenvalues.sum()), np.finfo(float).tiny)
    return Projection(
        rows=tuple(rows),
        batches=tuple(batches[code] for code in codes),
        scores=tuple(tuple(row) for row in scores.tolist()),
        explained=tuple(explained.tolist()),
        between_batches=tuple(_share_between(scores[:, i], codes) for i in range(len(order))),
        features=len(index),
    )


def usable_columns(before: FloatArray, after: FloatArray) -> FloatArray:
    """Return which features are complete and vary, before and after."""
    return np.asarray(
        np.isfinite(before).all(axis=0)
        & np.isfinite(after).all(axis=0)
        & (np.ptp(before, axis=0) > 0)
        & (np.ptp(after, axis=0) > 0)
    )


def _share_between(score: FloatArray, codes: IntArray) -> float:
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=score) / np.maximum(counts, 1)
    total = float(((score - score.mean()) ** 2).sum())
    return float((counts * (means - score.mean()) ** 2).sum() / total) if total > 0 else 0.0
