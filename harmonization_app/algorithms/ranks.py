"""Places of values among the sorted ones, where equal values share theirs."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import FloatArray, IntArray


def tie_limits(ranked: FloatArray) -> tuple[IntArray, IntArray]:
    """Return, for each place in the sorted columns of `ranked` [places x columns], how many values of its column are
    smaller and how many not greater.
    """
    places = np.broadcast_to(np.arange(len(ranked))[:, None], ranked.shape)
    edge = np.ones((1, ranked.shape[1]), dtype=bool)
    new = np.vstack([edge, ranked[1:] != ranked[:-1]])
    first = np.maximum.accumulate(np.where(new, places, 0), axis=0)
    ends = np.vstack([new[1:], edge])
    last = np.minimum.accumulate(np.where(ends, places + 1, len(ranked))[::-1], axis=0)[::-1]
    return first.astype(np.int64), last.astype(np.int64)
