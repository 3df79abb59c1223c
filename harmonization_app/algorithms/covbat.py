"""CovBat: ComBat, then harmonization of the batches' covariance through principal component scores.

Source: Chen et al., Hum Brain Mapp 43:1179 (2022). The scores of the ComBat-adjusted residuals that hold
`percent_variance` of their variance are brought to common mean and variance without empirical Bayes, as the
published default has it. Equal to the R package CovBat (git 1ca2942) within 1e-9 feature SD.

Limits: needs more scans than components to mean anything; takes no missing values; the components are learnt
from all features of a pool, so features of unlike kind belong in pools of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms import kernel
from harmonization_app.algorithms.base import Capabilities, Dataset, Finding, FloatArray, IntArray, Result
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import known_codes, pool_columns, select_features
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification, method_schema

OPTIONS: dict[str, Any] = {
    "percent_variance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.95,
        "description": "share of the residuals' variance whose components are harmonized",
    },
    "standardize": {
        "type": "boolean",
        "default": True,
        "description": "give every feature the same variance before the components are found",
    },
}


class CovBat(Combat):
    """ComBat followed by the harmonization of principal component scores."""

    id: ClassVar[str] = "covbat"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "CovBat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        train_apply=True, nonparametric=True, mean_only=True, without_eb=True
    )
    limits: ClassVar[tuple[str, ...]] = (
        *Combat.limits[:-2],
        "The covariance is corrected in the space of the leading principal components only, without "
        "empirical Bayes: with fewer scans in a batch than components kept, the scores' scale is mostly "
        "noise.",
        "Takes no missing values and no reference batch.",
        "The components are learnt from all features of a pool together: features of unlike kind belong in "
        "pools of their own.",
        Combat.limits[-1],
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.covbat",
    )

    def parameters_schema(self) -> dict[str, Any]:
        return method_schema(OPTIONS, {"reference_batch": None})

    def estimate(
        self, dataset: Dataset, specification: Specification, findings: tuple[Finding, ...]
    ) -> Model:
        """Return ComBat's model with the components and the shift and scale of their scores by batch."""
        options = read_options(self.parameters_schema(), specification)
        dataset = select_features(dataset, specification.features)
        model = super().estimate(dataset, specification, findings)
        combat = super().correct(model, dataset, findings)
        residuals = self._residuals(model, dataset, combat.values)
        codes = known_codes(dataset, specification, model.batches)
        pools = pool_columns(dataset, specification, model.corrected)
        arrays = dict(model.arrays)
        numbers: dict[str, int] = {}
        for position, (pool, columns) in enumerate(pools.items()):
            found = _score_effects(residuals[:, columns], codes, len(model.batches), options)
            arrays |= {f"{name}_{position}": array for name, array in found.items()}
            arrays[f"columns_{position}"] = columns
            numbers[pool] = found["rotation"].shape[1]
        return replace(model, arrays=arrays, facts={**model.facts, "components": numbers})

    def correct(self, model: Model, dataset: Dataset, findings: tuple[Finding, ...]) -> Result:
        """Return values with ComBat's correction and the scores' correction projected back on the features."""
        result = super().correct(model, dataset, findings)
        residuals = self._residuals(model, dataset, result.values)
        codes = known_codes(dataset, model.specification, model.batches)
        deviation = np.sqrt(model.arrays["pooled_variance"])
        for position in range(len(model.facts["components"])):
            names = ("columns", "rotation", "spread", "middle", "shift", "scale")
            columns, rotation, spread, middle, shift, scale = (
                model.arrays[f"{name}_{position}"] for name in names
            )
            scores = ((residuals[:, columns] - middle) / spread) @ rotation
            change = (scores - shift[codes]) / scale[codes] - scores
            result.values[:, columns] += (change @ rotation.T) * spread * deviation[columns]
        return result

    def _residuals(self, model: Model, dataset: Dataset, values: FloatArray) -> FloatArray:
        """Return adjusted values less grand mean and covariates' effect, in pooled SD."""
        arrays = model.arrays
        covariates = (self.covariate_columns(model, dataset) - arrays["centre"]) / arrays["scale"]
        fitted = arrays["grand_mean"] + covariates @ arrays["coefficients"]
        return np.asarray((values - fitted) / np.sqrt(arrays["pooled_variance"]))


def _score_effects(
    residuals: FloatArray, codes: IntArray, batches: int, options: dict[str, Any]
) -> dict[str, FloatArray]:
    """Return the rotation [features x components] and each batch's shift and scale of the scores.

    The scores' location and scale follow ComBat without empirical Bayes and without covariates: the pooled
    variance divides by the number of scans, a batch's variance by its scans less one.
    """
    middle = residuals.mean(axis=0)
    spread = residuals.std(axis=0, ddof=1) if options["standardize"] else np.ones(residuals.shape[1])
    _, singular, rotation = np.linalg.svd((residuals - middle) / spread, full_matrices=False)
    share = np.cumsum(singular**2) / np.sum(singular**2)
    components = int(np.argmax(share > options["percent_variance"])) + 1
    kept = rotation[:components].T
    scores = ((residuals - middle) / spread) @ kept
    grouping = kernel.group_rows(codes, batches)
    statistics = kernel.fit_statistics(np.ascontiguousarray(scores), grouping, np.empty((len(codes), 0)))
    counts = grouping.counts[:, None]
    pooled = statistics.residual_squares.sum(axis=0) / len(codes)
    grand_mean = (grouping.counts / len(codes)) @ statistics.intercepts
    ratio = np.sqrt(statistics.residual_squares / np.maximum(counts - 1.0, 1.0) / pooled)
    ratio[ratio == 0] = 1.0
    # (s - grand_mean - shift) / ratio + grand_mean, written as one shift and one scale.
    shift = statistics.intercepts - ratio * grand_mean
    return {"rotation": kept, "spread": spread, "middle": middle, "shift": shift, "scale": ratio}
