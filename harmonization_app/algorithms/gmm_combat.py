"""ComBat with a hidden grouping of scans that the features themselves show (GMM ComBat).

Source: Horng et al., Sci Rep 12:4493 (2022). A mixture of two normal distributions is fitted to every feature; the
feature best described so (by AIC), with a share of the scans in each component, divides the scans in two. With
`grouping` "batch" (published as +GMM) that division is a further batch variable, corrected before the known one; with
"protect" (-GMM) it is a covariate whose effect is preserved. Unlike the published program, AIC is taken on standardized
features (otherwise the feature with the smallest unit wins) and nothing is random; a new scan is assigned by the frozen
mixture. On 84 simulated features of two modes every scan is put as by scikit-learn's GaussianMixture run to
convergence, with its AIC within 1.1e-5. In 20 simulations (4 sites of 40 scans, 20 features, a hidden shift of 4 SD in
half of them) 97 % of the scans are assigned rightly in the median (2.3 % lie beyond the middle of two such components),
and of the hidden shift 11 % remain with "batch", 99 % with "protect".

Limits: a division found in the outcome is corrected in, or kept in, that same outcome, and the division may be biology.
A planned `feature` keeps at least the choice of the feature out of the data; the gate warns where none is planned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from harmonization_app.algorithms.base import (
    Algorithm,
    Capabilities,
    Dataset,
    Finding,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.compound import Labels, Step, apply_steps, fit_steps, pack
from harmonization_app.algorithms.design import learn_coding, level_texts, select_features
from harmonization_app.algorithms.hidden_grouping import (
    LOWER,
    UPPER,
    Grouping,
    check_feature,
    describe,
    find_grouping,
    mixture_arrays,
    stored_mixture,
)
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import base_facts, batch_sizes
from harmonization_app.algorithms.options import check_parameters, read_options
from harmonization_app.algorithms.specification import Covariate, Specification, method_schema
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import stops

# Column that the grouping becomes, and the name of the step that corrects the known batch.
GROUPING, KNOWN = "hidden_grouping", "batch"
OPTIONS: dict[str, Any] = {
    "grouping": {
        "enum": ["batch", "protect"],
        "description": "correct the hidden grouping as a batch (+GMM), or preserve it as a covariate (-GMM)",
    },
    "feature": {
        "type": ["string", "null"],
        "default": None,
        "description": "feature that shows the grouping; empty: the one best described by two components",
    },
    "minimum_share": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 0.5,
        "default": 0.25,
        "description": "least part of the scans in each component",
    },
    "minimum_gain": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 10.0,
        "description": "least AIC by which two components describe the feature better than one",
    },
}


class GMMCombat(Algorithm):
    """ComBat that corrects or preserves a hidden grouping found by a mixture of two normal distributions."""

    id: ClassVar[str] = "gmm-combat"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "GMM ComBat (multi-modal features)"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=True, train_apply=True, nonparametric=True, mean_only=True, without_eb=True
    )
    limits: ClassVar[tuple[str, ...]] = (
        "The hidden grouping is found in the measurements that are then corrected. A primary analysis should name "
        "the feature that shows it in the plan; the gate warns where the plan leaves that choice to the data.",
        "Two modes may be biology (sex, disease, response to treatment). With grouping batch that biology is removed "
        "unless a covariate of the plan explains it.",
        "One division into two groups from one feature; features with other modes are not helped.",
        "Skewed or heavy-tailed features are described better by two components as well; look at the feature "
        "chosen.",
        "Where the grouping follows the known batches, the two cannot be told apart.",
        "A scan between the components is put on one side all the same; the report counts such scans.",
        *Combat.limits,
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.compound",
        "harmonization_app.algorithms.gmm_combat",
        "harmonization_app.algorithms.hidden_grouping",
        "harmonization_app.algorithms.mixture",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(OPTIONS, {"reference_batch": None})
        schema["properties"]["options"]["required"] = ["grouping"]
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the gate for the known batch and, as the plan has it, for the grouping."""
        return self._examine(dataset, specification)[0]

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Find the grouping and fit with it. Raises HarmonizationRefused."""
        findings, grouping = self._examine(dataset, specification)
        require_no_stops(findings)
        if grouping is None:
            raise AssertionError("A dataset without a grouping has passed the gate.")
        dataset = select_features(dataset, specification.features)
        augmented = _with_grouping(dataset, grouping)
        parts = fit_steps(_steps(augmented, specification), augmented)
        facts = {
            **base_facts(dataset, findings),
            "grouping": {"mode": specification.options["grouping"], **grouping.facts},
            "limits": list(self.limits),
        }
        packed = pack(self, specification, dataset, batch_sizes(dataset, specification), parts, facts)
        arrays = {**packed.arrays, **mixture_arrays(grouping.mixture)}
        return replace(packed, arrays=arrays, coding=learn_coding(dataset, specification))

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans of known batches, each put into a component by the frozen mixture. Raises
        HarmonizationRefused.
        """
        dataset = select_features(dataset, model.features)
        findings = gate.check_apply(model, dataset)
        require_no_stops(findings)
        grouping = Grouping(model.facts["grouping"]["feature"], stored_mixture(model.arrays), {})
        augmented = _with_grouping(dataset, grouping)
        return apply_steps(model, augmented, findings, lambda name: _batches(augmented, name))

    def _examine(
        self, dataset: Dataset, specification: Specification
    ) -> tuple[tuple[Finding, ...], Grouping | None]:
        """Return all findings, and the grouping where nothing has stopped its search."""
        findings = check_parameters(self.parameters_schema(), specification)
        if not findings:
            findings += gate.check(dataset, replace(specification, options={}))
        if stops(findings):
            return tuple(findings), None
        dataset = select_features(dataset, specification.features)
        options = read_options(self.parameters_schema(), specification)
        found = _check_name(dataset) or check_feature(dataset, options)
        if found:
            return (*findings, *found), None
        grouping = find_grouping(dataset, options)
        if isinstance(grouping, Finding):
            return (*findings, grouping), None
        findings.append(describe(grouping, dataset))
        if options["feature"] is None:
            findings.append(_chosen_from_outcome(grouping))
        augmented = _with_grouping(dataset, grouping)
        for step in _steps(augmented, specification):
            own = gate.check(replace(augmented, batches=step.batches), step.specification)
            prefix = "Hidden grouping: " if step.name == GROUPING else ""
            findings += [replace(item, message=prefix + item.message) for item in own]
        return tuple(dict.fromkeys(findings)), grouping


def _chosen_from_outcome(grouping: Grouping) -> Finding:
    message = (
        f"The plan names no feature for the hidden grouping, so {grouping.feature} was chosen from the measurements "
        "that are corrected. Write options.feature into the plan before it is locked."
    )
    return Finding("grouping_feature_from_data", "warn", message, columns=(grouping.feature,))


def _check_name(dataset: Dataset) -> list[Finding]:
    if GROUPING not in dataset.covariates:
        return []
    message = f"A column is called {GROUPING}, the name of the grouping to be found; call it otherwise."
    return [Finding("grouping_name_taken", "stop", message, columns=(GROUPING,))]


def _steps(augmented: Dataset, specification: Specification) -> list[Step]:
    """Return ComBat of the grouping and of the known batch, or of the latter alone with the grouping protected."""
    known = replace(specification, options={})
    if specification.options["grouping"] == "batch":
        hidden = replace(known, merge_batches={})
        return [
            Step(name, _batches(augmented, name), own) for name, own in ((GROUPING, hidden), (KNOWN, known))
        ]
    protected = Covariate(GROUPING, "categorical", reference=LOWER, levels=(LOWER, UPPER))
    return [Step(KNOWN, augmented.batches, replace(known, covariates=(*known.covariates, protected)))]


def _with_grouping(dataset: Dataset, grouping: Grouping) -> Dataset:
    return replace(dataset, covariates={**dataset.covariates, GROUPING: grouping.labels(dataset)})


def _batches(augmented: Dataset, name: str) -> Labels:
    """Return the batches of the step `name`: the grouping's components, or the known ones."""
    return tuple(level_texts(augmented.covariates[GROUPING])) if name == GROUPING else augmented.batches
