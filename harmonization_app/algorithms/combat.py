"""ComBat: location and scale harmonization with empirical Bayes, in float64.

Sources: Johnson, Li, Rabinovic, Biostatistics 8:118 (2007); Fortin et al., NeuroImage 161:149 (2017) and
167:104 (2018). Missing values as in the R package neuroCombat 1.0.14: each feature uses its observed scans
and the pooled variance divides by their number. Equal to that package within 1e-9 feature SD on all reference
cases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from harmonization_app.algorithms import kernel
from harmonization_app.algorithms.base import (
    Algorithm,
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.blas import single_thread
from harmonization_app.algorithms.design import (
    Design,
    build_design,
    code_covariates,
    known_codes,
    select_features,
)
from harmonization_app.algorithms.location_scale import Estimated, Moments, batch_effects, shrink, standardize
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import SHARED_MODULES, flagged, new_model, table_facts
from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.algorithms.table import Labelled, examined
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.gate_summary import take_statistics


class Combat(Algorithm):
    """ComBat with parametric or non-parametric empirical Bayes, without it, mean-only, or to a reference
    batch.

    A feature that is constant in the whole dataset is passed through; one that is constant within a batch
    keeps that batch's scale (only its mean is moved). Both are flagged.
    """

    id: ClassVar[str] = "combat"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "ComBat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=True,
        reference_batch=True,
        train_apply=True,
        nonparametric=True,
        mean_only=True,
        without_eb=True,
        new_batch=True,
    )
    limits: ClassVar[tuple[str, ...]] = (
        "A covariate is taken to have the same linear effect in all batches. Where a scanner changes the "
        "slope of age or disease, or the effect bends, the correction is biased (Jodoin et al., Sci Rep "
        "15:41508 (2025)).",
        "Small batches gain nothing: in our simulation (5 sites, 68 features, shift 0.35 SD) the variance "
        "correction harms below about 8 scans and breaks even there; without empirical Bayes it harms up to "
        "about 16.",
        "Where a batch differs from the others by 20 to 30 years of age and age is left out or its effect "
        "is not linear, the result is worse than no harmonization.",
        "Whatever differs between batches and is not a covariate, disease included, is removed with the "
        "scanner's effect; a covariate that batches determine is refused.",
        "Empirical Bayes needs many features of one kind in a pool; features of unlike kind in one pool "
        "change results by 0.05 to 0.12 SD.",
        "Repeated scans of a subject are taken as independent; plan longcombat for them.",
        "Each feature's mean and scale are corrected, not the covariance between features, and not drift "
        "within a batch.",
        "The uncertainty of the batch effects is not carried into later tests: keep the covariates, and "
        "batch in a sensitivity analysis, in the analysis model.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *SHARED_MODULES,
        "harmonization_app.algorithms.add_batch",
        "harmonization_app.algorithms.blas",
        "harmonization_app.algorithms.combat",
        "harmonization_app.algorithms.empirical_bayes",
        "harmonization_app.algorithms.location_scale",
        "harmonization_app.algorithms.shrinkage_loops",
        "harmonization_app.algorithms.spread",
    )

    def parameters_schema(self) -> dict[str, Any]:
        return method_schema()

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings on the parameters and of the common gate, also where the former stop."""
        own = check_parameters(self.parameters_schema(), specification)
        if not self.capabilities.missing_values:
            specification = replace(specification, missing_values="refuse")
        return (*own, *gate.check(dataset, specification))

    def design(self, dataset: Dataset, specification: Specification) -> Design:
        """Return batches and covariate columns of a dataset that passed `validate`."""
        return build_design(dataset, specification)

    def covariate_columns(self, model: Model, dataset: Dataset) -> FloatArray:
        """Return the covariate columns of scans to correct, as they were when `model` was fitted."""
        return code_covariates(dataset, model.coding)

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate batch effects; see Algorithm.fit. The model's `facts` hold the findings of the gate."""
        dataset = examined(dataset)
        with single_thread():
            findings = self.validate(dataset, specification)
            require_no_stops(findings)
            return self.estimate(dataset, specification, findings)

    def harmonize(self, dataset: Dataset, specification: Specification) -> Result:
        """Fit on a dataset and correct that same dataset; gate, fit and correction share one look at the values."""
        shared = examined(dataset)
        return self.apply(self.fit(shared, specification), shared)

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans of known batches with their own covariates, by frozen parameters."""
        dataset = select_features(dataset, model.features)
        with single_thread():
            findings = gate.check_apply(model, dataset, missing_values=self.capabilities.missing_values)
            require_no_stops(findings)
            return self.correct(model, dataset, findings)

    def estimate(
        self, dataset: Dataset, specification: Specification, findings: tuple[Finding, ...]
    ) -> Model:
        """Return the model of a dataset that passed `validate` with `findings`."""
        dataset = select_features(dataset, specification.features)
        design = self.design(dataset, specification)
        return self.conclude(dataset, specification, design, take_statistics(dataset, design), findings)

    def correct(self, model: Model, dataset: Dataset, findings: tuple[Finding, ...]) -> Result:
        """Return the corrected values of a dataset that passed `gate.check_apply` with `findings`."""
        codes = known_codes(dataset, model.specification, model.batches)
        arrays = model.arrays
        covariates = (self.covariate_columns(model, dataset) - arrays["centre"]) / arrays["scale"]
        grouping = kernel.group_rows(codes, len(model.batches))
        values = kernel.apply_affine(dataset.values, grouping, covariates, batch_effects(arrays))
        return Result(values, model, findings, model.iterations, model.flags, model.facts)

    def conclude(
        self,
        table: Labelled,
        specification: Specification,
        design: Design,
        statistics: kernel.Statistics,
        findings: tuple[Finding, ...],
    ) -> Model:
        """Return the model of a table from its statistics, however these were gathered."""
        moments = standardize(table, design, statistics, specification)
        estimated = shrink(moments, design, table, specification)
        return self.frame(table, specification, design, statistics, moments, estimated, findings)

    def frame(
        self,
        table: Labelled,
        specification: Specification,
        design: Design,
        statistics: kernel.Statistics,
        moments: Moments,
        estimated: Estimated,
        findings: tuple[Finding, ...],
    ) -> Model:
        """Return the model of what was estimated; arrays in `estimated` go before those of `moments`."""
        arrays, iterations = estimated
        partly = statistics.constant.any(axis=0) & ~statistics.uniform
        missing = int(len(table.rows) * len(table.features) - moments.counts.sum())
        return new_model(
            self,
            table,
            specification,
            design,
            arrays={
                "coefficients": statistics.coefficients,
                "centre": statistics.centre,
                "scale": statistics.scale,
                "pooled_variance": moments.pooled_variance,
                "grand_mean": moments.grand_mean,
                "counts": moments.counts,
                **arrays,
            },
            iterations=iterations,
            flags=flagged(table, {**moments.passed_through, "constant_in_batch": partly}),
            facts=table_facts(table, missing, findings),
        )
