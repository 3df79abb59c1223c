"""What methods share that fit their own way: the base of their models and of their refusals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import (
    Algorithm,
    Dataset,
    Finding,
    FloatArray,
    IntArray,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import learn_coding, merged_labels, select_features
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import base_facts, batch_sizes, open_fit, run_gate
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.spread import without_spread
from harmonization_app.diagnostics import gate


class DirectMethod(Algorithm):
    """A method that corrects each scan by numbers of its batch, learnt in one step.

    A subclass estimates arrays in `learn` and corrects values in `adjust`; this class keeps the gate, the model and
    the order of features and batches.
    """

    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.direct",
        "harmonization_app.algorithms.opening",
    )

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate and of `check`."""
        return run_gate(self, dataset, specification, self.check_planned)

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate the batches' numbers. Raises HarmonizationRefused when `validate` stops."""
        dataset, findings = open_fit(self, dataset, specification)
        sizes = batch_sizes(dataset, specification)
        labels = [str(label) for label in merged_labels(dataset, specification)]
        codes = batch_positions(labels, tuple(sizes))
        options = read_options(self.parameters_schema(), specification)
        arrays = self.learn(dataset, codes, len(sizes), specification, options)
        return Model(
            algorithm=self.id,
            version=self.version,
            specification=specification,
            features=dataset.features,
            units=dataset.units,
            batches=tuple(sizes),
            batch_sizes=tuple(sizes.values()),
            coding=learn_coding(dataset, specification),
            arrays=arrays,
            flags=self.flags(dataset, arrays),
            facts={**base_facts(dataset, findings), "limits": list(self.limits)},
        )

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans of known batches by frozen numbers. Raises HarmonizationRefused."""
        dataset = select_features(dataset, model.features)
        findings = gate.check_apply(model, dataset, missing_values=self.capabilities.missing_values)
        require_no_stops(findings)
        labels = [str(label) for label in merged_labels(dataset, model.specification)]
        codes = batch_positions(labels, model.batches)
        values = self.adjust(model, dataset, codes)
        return Result(values, model, findings, model.iterations, model.flags, model.facts)

    def check_planned(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Return the findings of `check` on the planned features, or why their spread cannot be computed."""
        planned = select_features(dataset, specification.features)
        return without_spread(planned) or self.check(planned, specification)

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Return the findings of this method alone on a dataset that passed the common gate."""
        return []

    def flags(self, dataset: Dataset, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[str, ...]]:
        """Return the features treated otherwise than the rest, by reason; those not `usable` pass through."""
        if "usable" not in arrays or arrays["usable"].all():
            return {}
        return {"unusable": tuple(np.array(dataset.features)[~arrays["usable"]].tolist())}

    @abstractmethod
    def learn(
        self,
        dataset: Dataset,
        codes: IntArray,
        batches: int,
        specification: Specification,
        options: Mapping[str, Any],
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of the model; `codes` number the batches of the scans."""

    @abstractmethod
    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        """Return the corrected values of a dataset that passed the gate."""


def usable_features(
    dataset: Dataset, codes: IntArray, batches: int, specification: Specification
) -> npt.NDArray[np.bool_]:
    """Return which features have the plan's least number of observed scans in every batch [features]."""
    seen = ~np.isnan(dataset.values)
    counts = np.stack([seen[codes == batch].sum(axis=0) for batch in range(batches)])
    return np.asarray((counts >= specification.minimum_scans).all(axis=0))


def batch_positions(labels: list[str], batches: tuple[str, ...]) -> IntArray:
    """Return the position of each scan's batch among `batches`."""
    position = {batch: index for index, batch in enumerate(batches)}
    return np.fromiter((position[label] for label in labels), np.int64, len(labels))


# Values of parameters that mean nothing to a method without empirical Bayes.
WITHOUT_EB: dict[str, Any] = {
    "eb": False,
    "parametric": True,
    "mean_only": False,
    "reference_batch": None,
    "pools": [],
}
