"""The batch effects on one state of the values: tests by feature, projection, covariances, Bhattacharyya distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.design import Design
from harmonization_app.diagnostics.batch_tests import (
    BatchSummary,
    BatchTests,
    measure_batch_effects,
    summarize,
)
from harmonization_app.diagnostics.bhattacharyya import bhattacharyya
from harmonization_app.diagnostics.covariance import CovarianceDistance, covariance_distance
from harmonization_app.diagnostics.noise_floor import noise_floor
from harmonization_app.diagnostics.projection import Projection, project
from harmonization_app.diagnostics.scope import LISTED
from harmonization_app.diagnostics.subjects import Subjects

# Features from which the likeness of a subject's scans is taken.
FLOOR_FEATURES = 200


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Batch effects on one state of the values; see effects.py for the JSON."""

    tests: BatchTests
    summary: BatchSummary
    projection: Projection | None
    covariance: CovarianceDistance
    bhattacharyya: dict[str, Any]

    def to_json(self, listed: Sequence[int] | IntArray) -> dict[str, Any]:
        return {
            "tests": self.tests.listed(listed),
            "columns": self.tests.columns(),
            "distributions": self.tests.distributions(),
            "summary": self.summary.to_json(),
            "projection": self.projection.to_json() if self.projection else None,
            "covariance": self.covariance.to_json(),
            "bhattacharyya": self.bhattacharyya,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The features drawn for ranks and multivariate figures, and which of these are complete and vary.

    `scans` are those that are compared between batches as a whole: one of each subject, where scans repeat them.
    """

    features: IntArray
    usable: IntArray
    scans: IntArray


def measure_stage(
    values: FloatArray, dataset: Dataset, design: Design, drawn: Drawn, reference: str | None, seed: int
) -> Stage:
    """Return the batch effects on `values` [scans x features], the scans and features being those of `dataset`."""
    ranked = True if len(drawn.features) == values.shape[1] else drawn.features
    tests = measure_batch_effects(
        values, design.codes, design.covariates, dataset.features, ranks_and_scales=ranked
    )
    own = values[:, drawn.usable]
    everything = np.ones(own.shape[1], dtype=bool)
    once, codes, covariates = own[drawn.scans], design.codes[drawn.scans], design.covariates[drawn.scans]
    return Stage(
        tests,
        summarize(tests),
        project(own, design.codes, design.batches, dataset.rows, everything, seed),
        covariance_distance(once, codes, covariates, design.batches, seed),
        bhattacharyya(once, codes, covariates, design.batches, reference),
    )


def listed_features(before: BatchTests) -> IntArray:
    """Return the positions of the features to write out one by one: all, or those with the largest batch effect."""
    if len(before) <= LISTED:
        return np.arange(len(before))
    sizes = np.nan_to_num(before.figures["partial_eta_squared"], nan=-1.0)
    return np.sort(np.argsort(-sizes, kind="stable")[:LISTED])


def in_sample_floor(after: FloatArray, design: Design, drawn: Drawn, subjects: Subjects | None) -> float:
    """Return the partial eta squared to expect of batches that do not differ, on the fitted scans."""
    values = after[:, drawn.usable[:FLOOR_FEATURES]]
    return noise_floor(design.codes, design.covariates, values, None if subjects is None else subjects.codes)
