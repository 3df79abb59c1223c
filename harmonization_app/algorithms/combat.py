"""ComBat: location and scale harmonization with empirical Bayes, in float64.

Sources: Johnson, Li, Rabinovic, Biostatistics 8:118 (2007); Fortin et al., NeuroImage 161:149 (2017) and
167:104 (2018). Missing values as in the R package neuroCombat 1.0.14: each feature uses its observed scans
and the pooled variance divides by their number. Equal to that package within 1e-9 feature SD on all reference
cases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms import kernel
from harmonization_app.algorithms.base import (
    Algorithm,
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    Result,
    require_no_stops,
    without_rows,
)
from harmonization_app.algorithms.blas import single_thread
from harmonization_app.algorithms.design import (
    Design,
    batch_codes,
    build_design,
    code_covariates,
    select_features,
)
from harmonization_app.algorithms.location_scale import Moments, batch_effects, shrink, standardize
from harmonization_app.algorithms.model import Model
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
        "harmonization_app.algorithms.add_batch",
        "harmonization_app.algorithms.affine",
        "harmonization_app.algorithms.base",
        "harmonization_app.algorithms.blas",
        "harmonization_app.algorithms.combat",
        "harmonization_app.algorithms.design",
        "harmonization_app.algorithms.empirical_bayes",
        "harmonization_app.algorithms.kernel",
        "harmonization_app.algorithms.least_squares",
        "harmonization_app.algorithms.location_scale",
        "harmonization_app.algorithms.missing_cells",
        "harmonization_app.algorithms.model",
        "harmonization_app.algorithms.options",
        "harmonization_app.algorithms.specification",
        "harmonization_app.algorithms.spread",
        "harmonization_app.algorithms.table",
        "harmonization_app.diagnostics.gate",
        "harmonization_app.diagnostics.gate_assumptions",
        "harmonization_app.diagnostics.gate_balance",
        "harmonization_app.diagnostics.gate_batches",
        "harmonization_app.diagnostics.gate_counts",
        "harmonization_app.diagnostics.gate_covariates",
        "harmonization_app.diagnostics.gate_products",
        "harmonization_app.diagnostics.gate_residuals",
        "harmonization_app.diagnostics.gate_slopes",
        "harmonization_app.diagnostics.gate_summary",
        "harmonization_app.diagnostics.gate_values",
        "harmonization_app.diagnostics.subjects",
        "harmonization_app.diagnostics.wording",
    )

    def parameters_schema(self) -> dict[str, Any]:
        return method_schema()

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
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
        levels, own_codes = batch_codes(dataset, model.specification)
        position = {batch: index for index, batch in enumerate(model.batches)}
        codes = np.array([position[level] for level in levels], dtype=np.int64)[own_codes]
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
        return self._model(table, specification, design, statistics, moments, findings)

    def _model(
        self,
        table: Labelled,
        specification: Specification,
        design: Design,
        statistics: kernel.Statistics,
        moments: Moments,
        findings: tuple[Finding, ...],
    ) -> Model:
        estimates, iterations = shrink(moments, design, table, specification)
        return Model(
            algorithm=self.id,
            version=self.version,
            specification=specification,
            features=table.features,
            units=table.units,
            batches=design.batches,
            batch_sizes=tuple(int(size) for size in design.batch_sizes),
            coding=design.coding,
            arrays={
                **estimates,
                "coefficients": statistics.coefficients,
                "centre": statistics.centre,
                "scale": statistics.scale,
                "pooled_variance": moments.pooled_variance,
                "grand_mean": moments.grand_mean,
                "counts": moments.counts,
            },
            iterations=iterations,
            flags=_flags(table, statistics, moments),
            facts={
                "scans": len(table.rows),
                "features": len(table.features),
                "missing_cells": int(len(table.rows) * len(table.features) - moments.counts.sum()),
                "findings": without_rows(findings),
            },
        )


def _flags(table: Labelled, statistics: kernel.Statistics, moments: Moments) -> dict[str, tuple[str, ...]]:
    """Return the features treated otherwise than the rest, by reason."""
    partly = statistics.constant.any(axis=0) & ~statistics.uniform
    flagged = {**moments.passed_through, "constant_in_batch": partly}
    return {
        code: tuple(table.features[i] for i in np.flatnonzero(mask))
        for code, mask in flagged.items()
        if mask.any()
    }
