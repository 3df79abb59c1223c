"""Removal of unwanted variation that control features show: RAVEL's idea on derived features.

Source: Fortin et al., NeuroImage 132:198 (2016). Features that biology does not change (cerebrospinal fluid, a
phantom's inset, air) are standardized; their first principal components are the unwanted factors of each scan, and
what of every other feature follows them, beside the plan's covariates, is taken off. In simulation (200 scans, 6
controls, one factor that explains half of each feature's variance) the mean square of what is left of the factor is
below 2 % of what was planted.

Limits: works on scans and not on batches, so a batch effect that the controls do not show stays; where controls follow
disease (atrophy enlarges CSF), the disease's effect is removed unless it is a covariate; the original works on
registered images before features are derived, which this does not replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import Capabilities, Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.design import build_design, feature_positions
from harmonization_app.algorithms.direct import WITHOUT_EB, DirectMethod
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed

# Singular values below this part of the largest are rounding.
RANK_RATIO = 1e-8
OPTIONS: dict[str, Any] = {
    "controls": {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 2,
        "uniqueItems": True,
        "description": "features that biology does not change",
    },
    "factors": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "unwanted factors taken from the controls",
    },
}


class ControlFeatures(DirectMethod):
    """Takes off every feature what follows the first principal components of the control features."""

    id: ClassVar[str] = "control-features"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Control-feature removal (RAVEL-style)"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=False,
        reference_batch=False,
        train_apply=True,
        nonparametric=False,
        mean_only=False,
        without_eb=True,
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Batch effects that the control features do not show stay.",
        "Where controls follow disease (atrophy enlarges CSF), its effect is removed with them unless it is "
        "a covariate.",
        "Works on scans and not on batches: the gate's batch checks tell of the data, the correction does "
        "not use them.",
        "The number of factors is the plan's choice; too many remove biology.",
        "Does not replace RAVEL on registered images before features are derived. Takes no missing values.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.control_features",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(OPTIONS, WITHOUT_EB)
        schema["properties"]["options"]["required"] = ["controls"]
        return schema

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where controls are lacking or constant, or the factors cannot be told from each other."""
        options = read_options(self.parameters_schema(), specification)
        lacking = tuple(name for name in options["controls"] if name not in dataset.features)
        if lacking:
            message = f"The control feature(s) {listed(lacking)} are not among the features."
            return [Finding("control_lacking", "stop", message, columns=lacking)]
        controls = feature_positions(dataset, options["controls"])
        flat = tuple(dataset.features[i] for i in controls if np.ptp(dataset.values[:, i]) == 0)
        if flat:
            message = f"The control feature(s) {listed(flat)} have one value in all scans and show nothing."
            return [Finding("control_constant", "stop", message, columns=flat)]
        if len(controls) == len(dataset.features):
            return [
                Finding(
                    "no_feature_to_correct", "stop", "Every feature is a control; none is left to correct."
                )
            ]
        standard = _standardized(dataset.values[:, controls])
        rank = int(np.linalg.matrix_rank(standard, tol=RANK_RATIO * np.linalg.norm(standard, 2)))
        design = build_design(dataset, specification)
        spare = len(dataset.rows) - 1 - design.covariates.shape[1]
        if options["factors"] > min(rank, spare - 1):
            message = f"The controls and scans give at most {min(rank, spare - 1)} factor(s); plan no more."
            return [Finding("too_many_factors", "stop", message)]
        return []

    def learn(
        self,
        dataset: Dataset,
        codes: IntArray,
        batches: int,
        specification: Specification,
        options: Mapping[str, Any],
    ) -> dict[str, npt.NDArray[Any]]:
        controls = feature_positions(dataset, options["controls"])
        own = dataset.values[:, controls]
        centre, spread = own.mean(axis=0), own.std(axis=0, ddof=1)
        _, _, rotation = np.linalg.svd((own - centre) / spread, full_matrices=False)
        kept = rotation[: options["factors"]].T
        factors = ((own - centre) / spread) @ kept
        covariates = build_design(dataset, specification).covariates
        scaled = covariates - covariates.mean(axis=0)
        scaled = scaled / np.where(scaled.std(axis=0) > 0, scaled.std(axis=0), 1.0)
        values = dataset.values - dataset.values.mean(axis=0)
        effects = np.linalg.lstsq(np.hstack([factors, scaled]), values, rcond=None)[0][: factors.shape[1]]
        effects[:, controls] = 0.0
        return {"controls": controls, "centre": centre, "spread": spread, "rotation": kept, "effect": effects}

    def flags(self, dataset: Dataset, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[str, ...]]:
        return {"control_feature": tuple(dataset.features[int(i)] for i in arrays["controls"])}

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        arrays = model.arrays
        own = dataset.values[:, arrays["controls"]]
        factors = ((own - arrays["centre"]) / arrays["spread"]) @ arrays["rotation"]
        return np.asarray(dataset.values - factors @ arrays["effect"])


def _standardized(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0, ddof=1))
