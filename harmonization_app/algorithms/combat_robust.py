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

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import (
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import Design, select_features
from harmonization_app.algorithms.empirical_bayes import (
    CONVERGENCE,
    MAXIMUM_ITERATIONS,
    Prior,
    estimate_prior,
)
from harmonization_app.algorithms.kernel import BoolArray, Statistics, fit_statistics, group_rows
from harmonization_app.algorithms.location_scale import Moments, pool_columns, standardize
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.robust import medians, midvariances
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed


class CombatRobust(Combat):
    """ComBat with median shifts and biweight midvariance scales."""

    id: ClassVar[str] = "combat-robust"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Robust ComBat"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=True,
        reference_batch=True,
        train_apply=True,
        nonparametric=False,
        mean_only=True,
        without_eb=True,
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.combat_robust",
        "harmonization_app.algorithms.robust",
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
        arrays, iterations = effects.estimate(intercepts)
        return self._robust_model(
            dataset, specification, design, statistics, moments, arrays, iterations, findings
        )

    def _robust_model(
        self,
        dataset: Dataset,
        specification: Specification,
        design: Design,
        statistics: Statistics,
        moments: Moments,
        arrays: dict[str, FloatArray],
        iterations: dict[str, dict[str, int]],
        findings: tuple[Finding, ...],
    ) -> Model:
        names = np.array(dataset.features)
        partly = statistics.constant.any(axis=0) & ~statistics.uniform
        flagged = {**moments.passed_through, "constant_in_batch": partly}
        return Model(
            algorithm=self.id,
            version=self.version,
            specification=specification,
            features=dataset.features,
            units=dataset.units,
            batches=design.batches,
            batch_sizes=tuple(int(size) for size in design.batch_sizes),
            coding=design.coding,
            arrays={
                **arrays,
                "coefficients": statistics.coefficients,
                "centre": statistics.centre,
                "scale": statistics.scale,
                "grand_mean": moments.grand_mean,
                "counts": moments.counts,
            },
            iterations=iterations,
            flags={code: tuple(names[mask].tolist()) for code, mask in flagged.items() if mask.any()},
            facts={
                "scans": dataset.values.shape[0],
                "features": dataset.values.shape[1],
                "missing_cells": int(np.isnan(dataset.values).sum()),
                # Without rows: a model holds nothing of any subject.
                "findings": [replace(finding, rows=()).to_json() for finding in findings],
            },
        )


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

    def estimate(self, intercepts: FloatArray) -> tuple[dict[str, FloatArray], dict[str, dict[str, int]]]:
        """Return pooled variances [features], shifts and scales [batches x features] before and after shrinkage,
        priors [pools x batches x 4], and steps by pool and batch.
        """
        pooled = self._pooled_variance(intercepts)
        shape = (len(self.design.batches), len(self.dataset.features))
        pools = pool_columns(self.dataset, self.specification, ~self.moments.left_out)
        arrays = {
            "pooled_variance": pooled,
            "gamma_hat": np.zeros(shape),
            "delta_hat": np.ones(shape),
            "gamma_star": np.zeros(shape),
            "delta_star": np.ones(shape),
            "priors": np.full((len(pools), shape[0], 4), np.nan),
        }
        iterations: dict[str, dict[str, int]] = {pool: {} for pool in pools}
        for batch, name in enumerate(self.design.batches):
            standard = self._standard(batch, np.sqrt(pooled))
            shift, scale = self._location_scale(batch, standard)
            arrays["gamma_hat"][batch], arrays["delta_hat"][batch] = shift, scale
            if name == self.specification.reference_batch:
                continue
            arrays["gamma_star"][batch], arrays["delta_star"][batch] = shift, scale
            for index, (pool, columns) in enumerate(pools.items()):
                if not self.specification.eb or not columns.size:
                    continue
                prior = self._prior(pool, shift[columns], scale[columns])
                arrays["priors"][index, batch] = (prior.mean, prior.variance, prior.shape, prior.rate)
                arrays["gamma_star"][batch, columns], own, iterations[pool][name] = self._shrink(
                    batch, prior, standard[columns], shift[columns], scale[columns]
                )
                arrays["delta_star"][batch, columns] = own
            arrays["delta_star"][batch, self.moments.constant[batch]] = 1.0
        return arrays, iterations

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
        width = max(1, (1 << 22) // len(rows))
        for start in range(0, len(pooled), width):
            block = slice(start, start + width)
            fitted = intercepts[self.design.codes[rows], block]
            fitted += self.covariates[rows] @ self.coefficients[:, block]
            residuals = np.ascontiguousarray((self.dataset.values[rows, block] - fitted).T)
            counts = np.maximum(np.sum(~np.isnan(residuals), axis=1), 1)
            pooled[block] = midvariances(residuals, medians(residuals)) * (counts - 1.0) / counts
        pooled[self.moments.left_out] = 1.0
        self._require_estimable(~(np.isfinite(pooled) & (pooled > 0)), "all scans together")
        return pooled

    def _location_scale(self, batch: int, standard: FloatArray) -> tuple[FloatArray, FloatArray]:
        left_out = self.moments.left_out
        shift = np.zeros(len(standard))
        shift[~left_out] = medians(standard[~left_out])
        scale = np.ones(len(standard))
        if self.specification.mean_only:
            return shift, scale
        own = np.flatnonzero(~left_out & ~self.moments.constant[batch])
        scale[own] = midvariances(standard[own], shift[own])
        faulty = ~(np.isfinite(scale) & (scale > 0))
        self._require_estimable(faulty, f"batch {self.design.batches[batch]}")
        return shift, scale

    def _prior(self, pool: str, shift: FloatArray, scale: FloatArray) -> Prior:
        if len(shift) == 1:
            message = f"Pool {pool} has one usable feature; empirical Bayes needs at least two. Plan eb off."
            raise HarmonizationRefused([Finding("too_few_features_for_eb", "stop", message)])
        return estimate_prior(shift, scale, self.specification.mean_only)

    def _shrink(
        self, batch: int, prior: Prior, standard: FloatArray, shift: FloatArray, scale: FloatArray
    ) -> tuple[FloatArray, FloatArray, int]:
        """Return posterior shift and scale of the pool's features [features x scans], and the steps taken."""
        if self.specification.mean_only:
            variance = prior.variance
            return (variance * shift + prior.mean) / (variance + 1.0), np.ones_like(scale), 1
        counts = np.sum(~np.isnan(standard), axis=1).astype(np.float64)
        weight, old_shift, old_scale = counts * prior.variance, shift, scale
        for step in range(1, MAXIMUM_ITERATIONS + 1):
            new_shift = (weight * shift + old_scale * prior.mean) / (weight + old_scale)
            squares = (counts - 1.0) * midvariances(standard, new_shift)
            new_scale = (0.5 * squares + prior.rate) / (counts / 2.0 + prior.shape - 1.0)
            change = max(_change(new_shift, old_shift), _change(new_scale, old_scale))
            if change <= CONVERGENCE:
                return new_shift, new_scale, step
            if np.isnan(change):
                break
            old_shift, old_scale = new_shift, new_scale
        raise HarmonizationRefused([_not_converged(self.design.batches[batch])])

    def _require_estimable(self, faulty: BoolArray, where: str) -> None:
        names = tuple(self.dataset.features[i] for i in np.flatnonzero(faulty))
        if not names:
            return
        message = (
            f"In {where} more than half of the values of {listed(names)} are equal; a robust scale cannot be "
            "estimated. Leave these features out of the plan, or plan combat."
        )
        raise HarmonizationRefused([Finding("robust_scale_not_estimable", "stop", message, columns=names)])


def _change(new: FloatArray, old: FloatArray) -> float:
    """Return the largest change over its old value, sign and all; a value that stays 0 has not changed."""
    difference = np.abs(new - old)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(difference == 0, 0.0, difference / old).max())


def _not_converged(batch: str) -> Finding:
    message = (
        f"The empirical Bayes estimates of batch {batch} did not settle within {MAXIMUM_ITERATIONS} steps. Look at "
        "its outliers, or run with eb off."
    )
    return Finding("eb_not_converged", "stop", message, batches=(batch,))
