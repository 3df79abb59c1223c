"""Batch labels drawn anew as if batch told nothing but what the covariates tell.

Where batches differ in their covariates, plainly permuted labels are no null: they break the tie of batch and
covariates along with that of batch and values. Labels are drawn given the covariates instead (conditional permutation
test: Berrett, Wang, Barber, Samworth, JRSSB 82:175 (2020)): pairs of scans of one block swap their labels with the odds
that a linear discriminant of the covariates gives, which keeps the number of each batch's scans in every block.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from harmonization_app.algorithms.base import FloatArray, IntArray

SWEEPS = 50


class Relabelling:
    """Draws labels for scans with `labels` and `covariates` [scans x columns], within `blocks` (a number per scan)."""

    def __init__(
        self, labels: IntArray, covariates: FloatArray, blocks: IntArray, random: np.random.Generator
    ) -> None:
        self._labels, self._blocks, self._random = labels, blocks, random
        self._scores = _discriminants(labels, covariates)

    def draw(self) -> IntArray:
        """Return one set of labels."""
        labels = self._labels.copy()
        for _ in range(SWEEPS):
            self._sweep(labels)
        return labels

    def _sweep(self, labels: IntArray) -> None:
        """Offer each scan a swap with one partner of its block."""
        order = np.lexsort((self._random.random(len(labels)), self._blocks))
        of_block = np.arange(len(order)) - np.searchsorted(self._blocks[order], self._blocks[order])
        opening = np.flatnonzero(of_block[:-1] % 2 == 0)
        opening = opening[self._blocks[order[opening]] == self._blocks[order[opening + 1]]]
        first, second = order[opening], order[opening + 1]
        own, other = labels[first], labels[second]
        gain = self._scores[first, other] + self._scores[second, own]
        gain -= self._scores[first, own] + self._scores[second, other]
        swapped = self._random.random(len(first)) < special.expit(gain)
        labels[first[swapped]], labels[second[swapped]] = other[swapped], own[swapped]


def _discriminants(labels: IntArray, covariates: FloatArray) -> FloatArray:
    """Return each scan's linear discriminant scores [scans x batches], up to what is alike for all its batches."""
    indicators = np.eye(int(labels.max()) + 1)[labels]
    if not covariates.shape[1]:
        return np.zeros_like(indicators)
    scaled = covariates - covariates.mean(axis=0)
    scaled = scaled / np.where((spread := scaled.std(axis=0)) > 0, spread, 1.0)
    means = indicators.T @ scaled / indicators.sum(axis=0)[:, None]
    within = scaled - means[labels]
    return np.asarray(scaled @ np.linalg.pinv(within.T @ within / len(labels), hermitian=True) @ means.T)
