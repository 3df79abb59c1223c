"""What methods share that fit their own way: the base of their models and of their refusals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import (
    Algorithm,
    Arrays,
    BoolArray,
    Dataset,
    Finding,
    FloatArray,
    IntArray,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import Design, build_design, known_codes, select_features
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import base_facts, flagged, new_model, open_fit, run_gate
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.spread import without_spread
from harmonization_app.diagnostics import gate

# Values of parameters that mean nothing to a method without empirical Bayes.
_WITHOUT_EB: dict[str, Any] = {
    "eb": False,
    "parametric": True,
    "mean_only": False,
    "reference_batch": None,
    "pools": [],
}


class DirectMethod(Algorithm):
    """A method that corrects each scan by numbers of its batch, learnt in one step.

    A subclass estimates arrays in `learn` and corrects values in `adjust`; this class keeps the gate, the model and
    the order of features and batches.
    """

    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.direct",
    )

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate and of `check`."""
        return run_gate(self, dataset, specification, self.check_planned)

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate the batches' numbers. Raises HarmonizationRefused when `validate` stops."""
        dataset, findings = open_fit(self, dataset, specification)
        design = build_design(dataset, specification)
        options = read_options(self.parameters_schema(), specification)
        arrays = self.learn(dataset, design, specification, options)
        return new_model(
            self,
            dataset,
            specification,
            design,
            arrays=arrays,
            flags=self.flags(dataset, arrays),
            facts={**base_facts(dataset, findings), "limits": list(self.limits)},
        )

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans of known batches by frozen numbers. Raises HarmonizationRefused."""
        dataset = select_features(dataset, model.features)
        findings = gate.check_apply(model, dataset, missing_values=self.capabilities.missing_values)
        require_no_stops(findings)
        codes = known_codes(dataset, model.specification, model.batches)
        values = self.adjust(model, dataset, codes)
        return Result(values, model, findings, model.iterations, model.flags, model.facts)

    def check_planned(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Return the findings of `check` on the planned features, or why their spread cannot be computed."""
        planned = select_features(dataset, specification.features)
        return without_spread(planned) or self.check(planned, specification)

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Return the findings of this method alone on a dataset that passed the common gate."""
        return []

    def flags(self, dataset: Dataset, arrays: Arrays) -> dict[str, tuple[str, ...]]:
        """Return the features treated otherwise than the rest, by reason; those not `usable` pass through."""
        return flagged(dataset, {"unusable": ~arrays["usable"]}) if "usable" in arrays else {}

    @abstractmethod
    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        """Return the arrays of the model from a dataset that passed the gate."""

    @abstractmethod
    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        """Return the corrected values of a dataset that passed the gate; `codes` number its scans' batches."""


def usable_features(dataset: Dataset, design: Design, specification: Specification) -> BoolArray:
    """Return which features have the plan's least number of observed scans in every batch [features]."""
    seen = ~np.isnan(dataset.values)
    counts = np.stack([seen[design.codes == batch].sum(axis=0) for batch in range(len(design.batches))])
    return np.asarray((counts >= specification.minimum_scans).all(axis=0))


def without_eb(*known: str) -> dict[str, Any]:
    """Return the parameters that mean nothing without empirical Bayes at their only value, less those `known`."""
    return {name: value for name, value in _WITHOUT_EB.items() if name not in known}
