"""The steps of the empirical Bayes estimates, compiled: each feature by itself, without fused arithmetic."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.algorithms.compiled import compiled


@compiled
def settle(
    shift: FloatArray,
    scale: FloatArray,
    own: FloatArray,
    counts: FloatArray,
    squares: FloatArray,
    mean: float,
    variance: float,
    shape: float,
    rate: float,
    largest_change: float,
    most_steps: int,
    width: int,
) -> int:
    """Move `shift` and `scale` [features] to their common fixed point; return the steps taken, 0 where that fails.

    It is reached when no value changes by more than `largest_change` times its old value, sign and all. `own` are the
    shifts before shrinkage; see `empirical_bayes.Prior` for the prior.
    """
    moves, turns = np.empty(width), np.empty(width)
    for step in range(1, most_steps + 1):
        unsettled, lost = 0, 0
        for begin in range(0, len(shift), width):
            end = min(begin + width, len(shift))
            _step(
                shift[begin:end],
                scale[begin:end],
                own[begin:end],
                counts[begin:end],
                squares[begin:end],
                mean,
                variance,
                shape,
                rate,
                moves,
                turns,
            )
            for i in range(end - begin):
                unsettled += not (moves[i] <= largest_change and turns[i] <= largest_change)
                lost += np.isnan(moves[i]) or np.isnan(turns[i])
        if lost:
            return 0
        if not unsettled:
            return step
    return 0


@compiled
def _step(
    shift: FloatArray,
    scale: FloatArray,
    own: FloatArray,
    counts: FloatArray,
    squares: FloatArray,
    mean: float,
    variance: float,
    shape: float,
    rate: float,
    moves: FloatArray,
    turns: FloatArray,
) -> None:
    """Take one step; set the relative changes. A value that stays has not changed, also where it is 0."""
    for i in range(len(shift)):
        weight = variance * counts[i]
        new_shift = (scale[i] * mean + weight * own[i]) / (weight + scale[i])
        away = own[i] - new_shift
        new_scale = ((away * away * counts[i] + squares[i]) * 0.5 + rate) / (counts[i] / 2.0 + shape - 1.0)
        move, turn = abs(new_shift - shift[i]), abs(new_scale - scale[i])
        moves[i] = 0.0 if move == 0.0 else move / shift[i]
        turns[i] = 0.0 if turn == 0.0 else turn / scale[i]
        shift[i], scale[i] = new_shift, new_scale
