"""Robust ComBat: shifts are medians and scales biweight midvariances, so that a few outlying scans do not move a batch.

Source: ComBatFamily (comfam with lm and robust.LS = TRUE; Beer et al.). The covariates' effects come from ordinary
least squares; pooled variance, shifts and scales are those of `robust`, and empirical Bayes uses midvariances about
the shrunken shift where ComBat uses sums of squares. Equal to ComBatFamily 0.2.1 within 1e-12 feature SD on the
three published cases.

Beyond the published definition: missing values (every estimate over the observed scans), mean-only, and a reference
batch, which is left unchanged and gives the pooled variance, as in `combat`.

Limits: only shift and scale are robust. The regression on the covariates is not: a gross outlier still moves it, so
outlying images belong out of the data by quality control first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import Capabilities, Dataset, Finding, FloatArray
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import Design, code_covariates, pool_columns, select_features
from harmonization_app.algorithms.kernel import fit_statistics, group_rows
from harmonization_app.algorithms.location_scale import Estimated, Moments, standardize
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.robust import medians, midvariances
from harmonization_app.algorithms.robust_batch import Standardized, estimate_batch, require_estimable
from harmonization_app.algorithms.specification import Specification, method_schema

RESIDUAL_CELLS = 1 << 22


class CombatRobust(Combat):
    """ComBat with median shifts and biweight midvariance scales."""

    id: ClassVar[str] = "combat-robust"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Robust ComBat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=True,
        reference_batch=True,
        train_apply=True,
        mean_only=True,
        without_eb=True,
        new_batch=True,
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.combat_robust",
        "harmonization_app.algorithms.robust",
        "harmonization_app.algorithms.robust_batch",
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Only the batches' shifts and scales are robust; the covariates' effects come from ordinary least squares, "
        "which a gross outlier still moves.",
        "Outlying scans are brought along with their batch and stay outliers; it is no substitute for quality "
        "control.",
        "Where more than half of a batch's scans share one value of a feature, its scale cannot be estimated and "
        "the run is refused.",
        "At equal numbers of scans, medians and midvariances vary more than means and variances when there are no "
        "outliers, so batches should be larger than for combat.",
        "Mean-only, a reference batch and missing values go beyond the published definition and have no published "
        "reference result.",
    )

    def parameters_schema(self) -> dict[str, Any]:
        return method_schema(fixed={"parametric": True})

    def estimate(
        self, dataset: Dataset, specification: Specification, findings: tuple[Finding, ...]
    ) -> Model:
        """Return the model of a dataset that passed `validate` with `findings`.

        Raises HarmonizationRefused where a robust scale is not estimable.
        """
        dataset = select_features(dataset, specification.features)
        design = self.design(dataset, specification)
        grouping = group_rows(design.codes, len(design.batches))
        statistics = fit_statistics(dataset.values, grouping, design.covariates)
        intercepts = statistics.intercepts.copy()
        moments = standardize(dataset, design, statistics, specification)
        scaled = (design.covariates - statistics.centre) / statistics.scale
        effects = _Effects(dataset, design, specification, moments, scaled, statistics.coefficients)
        estimated = effects.estimate(intercepts)
        return self.frame(dataset, specification, design, statistics, moments, estimated, findings)


def extend(model: Model, scans: Dataset, batch: str) -> Model:
    """Return `model` with `batch` added, its shift and scale shrunk by a prior over its own features.

    As `predict` of ComBatFamily with robust.LS = TRUE; every other number stays bit for bit. With a reference batch and
    no covariates it equals fitting all batches together.
    """
    arrays, specification = model.arrays, model.specification
    covariates = (code_covariates(scans, model.coding) - arrays["centre"]) / arrays["scale"]
    fitted = arrays["grand_mean"] + covariates @ arrays["coefficients"]
    usable = model.corrected
    values = np.ascontiguousarray(((scans.values - fitted) / np.sqrt(arrays["pooled_variance"])).T)
    standard = Standardized(batch, model.features, values, usable, np.zeros(len(usable), dtype=np.bool_))
    pools = pool_columns(scans, specification, usable)
    own = estimate_batch(standard, pools, specification)
    rows = {
        "gamma_hat": own.shift,
        "delta_hat": own.scale,
        "gamma_star": own.own_shift,
        "delta_star": own.own_scale,
        "counts": np.sum(~np.isnan(values), axis=1),
    }
    return model.with_batch(batch, len(scans.rows), rows, own.priors, own.steps)


@dataclass(frozen=True, slots=True, eq=False)
class _Effects:
    """The estimation of shifts and scales from standardized values, a batch at a time.

    `moments` are ComBat's own and give the grand mean, which features are left out and which are constant.
    """

    dataset: Dataset
    design: Design
    specification: Specification
    moments: Moments
    covariates: FloatArray
    coefficients: FloatArray

    def estimate(self, intercepts: FloatArray) -> Estimated:
        """Return pooled variances [features], shifts and scales [batches x features] before and after shrinkage,
        priors [pools x batches x 4], and steps by pool and batch.
        """
        pooled = self._pooled_variance(intercepts)
        batches, usable = self.design.batches, ~self.moments.left_out
        pools = pool_columns(self.dataset, self.specification, usable)
        shift, scale = np.zeros((len(batches), len(usable))), np.ones((len(batches), len(usable)))
        own_shift, own_scale = shift.copy(), scale.copy()
        priors = np.full((len(pools), len(batches), 4), np.nan)
        iterations: dict[str, dict[str, int]] = {pool: {} for pool in pools}
        for batch, name in enumerate(batches):
            values = self._standard(batch, np.sqrt(pooled))
            standard = Standardized(name, self.dataset.features, values, usable, self.moments.constant[batch])
            own = estimate_batch(standard, pools, self.specification)
            shift[batch], scale[batch] = own.shift, own.scale
            if name == self.specification.reference_batch:
                continue
            own_shift[batch], own_scale[batch], priors[:, batch] = own.own_shift, own.own_scale, own.priors
            for pool, steps in own.steps.items():
                iterations[pool][name] = steps
        arrays = {"gamma_hat": shift, "delta_hat": scale, "gamma_star": own_shift, "delta_star": own_scale}
        return {**arrays, "pooled_variance": pooled, "priors": priors}, iterations

    def _standard(self, batch: int, deviation: FloatArray) -> FloatArray:
        """Return the batch's standardized values [features x scans]."""
        rows = np.flatnonzero(self.design.codes == batch)
        fitted = self.moments.grand_mean + self.covariates[rows] @ self.coefficients
        return np.ascontiguousarray(((self.dataset.values[rows] - fitted) / deviation).T)

    def _pooled_variance(self, intercepts: FloatArray) -> FloatArray:
        """Return the midvariance of the residuals times (n - 1) / n, of the reference batch if there is one."""
        rows = np.arange(len(self.design.codes))
        if self.specification.reference_batch is not None:
            reference = self.design.batches.index(self.specification.reference_batch)
            rows = np.flatnonzero(self.design.codes == reference)
        pooled = np.ones(len(self.dataset.features))
        width = max(1, RESIDUAL_CELLS // len(rows))
        for start in range(0, len(pooled), width):
            block = slice(start, start + width)
            fitted = intercepts[self.design.codes[rows], block]
            fitted += self.covariates[rows] @ self.coefficients[:, block]
            residuals = np.ascontiguousarray((self.dataset.values[rows, block] - fitted).T)
            counts = np.maximum(np.sum(~np.isnan(residuals), axis=1), 1)
            pooled[block] = midvariances(residuals, medians(residuals)) * (counts - 1.0) / counts
        pooled[self.moments.left_out] = 1.0
        require_estimable(pooled, self.dataset.features, "all scans together")
        return pooled
