"""Principal components of the scans, to see batches apart or together.

Bounded: of at most 1,000 features and 2,000 scans, drawn by the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import linalg

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.diagnostics.scope import draw

COMPONENTS = 5
MOST_FEATURES, MOST_SCANS = 1000, 2000


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
    values: FloatArray,
    codes: IntArray,
    batches: Sequence[str],
    rows: Sequence[str],
    columns: FloatArray,
    seed: int = 0,
) -> Projection | None:
    """Return the projection of `values` [scans x features] on their first components.

    `columns` marks the features to use (complete and not constant, the same before and after). None where fewer
    than two features or three scans remain.
    """
    index = np.flatnonzero(columns)
    index = index[draw(len(index), MOST_FEATURES, seed)]
    scans = draw(len(values), MOST_SCANS, seed)
    if len(index) < 2 or len(scans) < 3:
        return None
    codes, standard = codes[scans], values[np.ix_(scans, index)]
    spread = standard.std(axis=0, ddof=1)
    standard = (standard - standard.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scores, eigenvalues = _components(standard, min(COMPONENTS, len(index), len(scans) - 1))
    explained = eigenvalues / max(float(np.einsum("sf,sf->", standard, standard)), np.finfo(float).tiny)
    return Projection(
        rows=tuple(rows[scan] for scan in scans),
        batches=tuple(batches[code] for code in codes),
        scores=tuple(tuple(row) for row in scores.tolist()),
        explained=tuple(explained.tolist()),
        between_batches=tuple(_share_between(scores[:, i], codes) for i in range(scores.shape[1])),
        features=len(index),
    )


def _components(standard: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Return scores [scans x components] and eigenvalues, by the smaller of the two Gram matrices."""
    scans, features = standard.shape
    gram = standard @ standard.T if scans <= features else standard.T @ standard
    span = (len(gram) - count, len(gram) - 1)
    eigenvalues, vectors = linalg.eigh(gram, subset_by_index=span)
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]
    if scans <= features:
        scores, loadings = vectors * np.sqrt(eigenvalues), standard.T @ vectors
    else:
        scores, loadings = standard @ vectors, vectors
    largest = np.abs(loadings).argmax(axis=0)
    signs = np.where(loadings[largest, np.arange(count)] < 0, -1.0, 1.0)
    return scores * signs, eigenvalues


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
