"""Removal of unwanted variation that control features show: RAVEL's idea on derived features.

Source: Fortin et al., NeuroImage 132:198 (2016). Features that biology does not change (cerebrospinal fluid, a
phantom's inset, air) are standardized; their first principal components are the unwanted factors of each scan, and what
of every other feature follows them, beside the plan's covariates, is taken off. Unlike the published program (git
0e28c87), which decomposes uncentred intensities and regresses without an intercept, the controls are centred and
standardized: levels of derived features differ far more than scans do and would be all it saw. In simulation (200
scans, 6 controls, one factor that explains half of each feature's variance) the mean square of what is left of the
factor is below 2 % of what was planted.

Limits: works on scans and not on batches, so a batch effect that the controls do not show stays; where controls follow
disease (atrophy enlarges CSF), the disease's effect is removed unless it is a covariate; the original works on
registered images before features are derived, which this does not replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import Arrays, Capabilities, Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.control_factors import (
    constant_controls,
    control_factors,
    lacking_controls,
    learn_controls,
    rank,
    standardized,
)
from harmonization_app.algorithms.design import Design, build_design, feature_positions
from harmonization_app.algorithms.direct import DirectMethod, without_eb
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification, method_schema

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
    capabilities: ClassVar[Capabilities] = Capabilities(train_apply=True, without_eb=True)
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
        "harmonization_app.algorithms.control_factors",
        "harmonization_app.algorithms.control_features",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(OPTIONS, without_eb())
        schema["properties"]["options"]["required"] = ["controls"]
        return schema

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where controls are lacking or constant, or the factors cannot be told from each other."""
        options = read_options(self.parameters_schema(), specification)
        names = options["controls"]
        faulty = lacking_controls(dataset, names) or constant_controls(dataset, names)
        if faulty:
            return faulty
        if len(names) == len(dataset.features):
            message = "Every feature is a control; none is left to correct."
            return [Finding("no_feature_to_correct", "stop", message)]
        controls = standardized(dataset.values[:, feature_positions(dataset, names)])
        spare = len(dataset.rows) - 1 - build_design(dataset, specification).covariates.shape[1]
        most = min(rank(controls), spare - 1)
        if options["factors"] > most:
            message = f"The controls and scans give at most {most} factor(s); plan no more."
            return [Finding("too_many_factors", "stop", message)]
        return []

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        controls = feature_positions(dataset, options["controls"])
        learnt: Arrays = {
            "controls": controls,
            **learn_controls(dataset.values[:, controls], options["factors"]),
        }
        factors = control_factors(learnt, dataset)
        scaled = design.covariates - design.covariates.mean(axis=0)
        scaled = scaled / np.where(scaled.std(axis=0) > 0, scaled.std(axis=0), 1.0)
        values = dataset.values - dataset.values.mean(axis=0)
        effects = np.linalg.lstsq(np.hstack([factors, scaled]), values, rcond=None)[0][: factors.shape[1]]
        effects[:, controls] = 0.0
        return {**learnt, "effect": effects}

    def flags(self, dataset: Dataset, arrays: Arrays) -> dict[str, tuple[str, ...]]:
        return {"control_feature": tuple(dataset.features[int(i)] for i in arrays["controls"])}

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        return np.asarray(dataset.values - control_factors(model.arrays, dataset) @ model.arrays["effect"])
