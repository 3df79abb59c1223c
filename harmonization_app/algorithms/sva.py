"""Surrogate variable analysis: unknown batch effects estimated from the features and removed.

Sources: Leek, Storey, PLoS Genet 3:e161 (2007); Leek et al., Bioinformatics 28:882 (2012); frozen: Parker et al., PeerJ
2:e561 (2014); one of the methods that Fortin et al., NeuroImage 161:149 (2017), compare. The iteratively re-weighted
surrogate variables of each feature pool (see `surrogate`) are fitted beside the plan's covariates, and their part is
taken off. With `factors_from` "residuals" they are the first components of the residuals beside the covariates, the
first step of Leek and Storey 2007: for tables in which every feature follows a covariate; in the fitted data the
covariates' coefficients then stay exactly as they were. New scans get theirs by the frozen weights and loadings, one by
one; the R package's rescaling over the new scans together is left out, since it makes a scan's value depend on its
companions.

In seven simulated tables (120 scans, 60 to 1,000 features, 1 to 3 factors) the number found is that of the R package
sva 3.46, and with its 5 rounds, not standardized, the corrected values agree within 3e-4 feature SD; from residuals
within 2e-14. In 20 simulations (200 scans, 100 features, a hidden batch that goes with age, age in a third of the
features) 0.4 % of the hidden batch's mean square effect beside age are left in the median, 0.8 % at most, and the slope
on age stays within 1 %; from residuals, with age in all features, 0.1 % and 0.2 %.

Limits: finds what many features share beside the covariates, whatever it is; for unknown batches, not in the place of a
correction of known scanners that is fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import (
    Arrays,
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    IntArray,
    Severity,
)
from harmonization_app.algorithms.design import Design, build_design, code_covariates
from harmonization_app.algorithms.direct import DirectMethod, without_eb
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import flagged
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.algorithms.surrogate import Surrogates, variance_explained
from harmonization_app.algorithms.surrogate_pools import Estimate, estimate_pools, varying_pools
from harmonization_app.diagnostics.wording import listed, stops

# Below the first the local false discovery rates mean nothing, below the second they are uncertain.
LEAST_FEATURES, FEW_FEATURES = 10, 50
# Part of a surrogate variable that the covariates explain, and of the features' variance that the surrogate variables
# hold: told above these, refused above the last.
WARN_EXPLAINED_ABOVE, WARN_REMOVED_ABOVE, STOP_ABOVE = 0.25, 0.5, 0.95
# The arrays of a pool's Surrogates, in their order.
LEARNT = ("centre", "middle", "slopes", "loadings", "effects")
# Change of a feature's weight in the last round below which the weights have settled.
SETTLED_BELOW = 0.05
OPTIONS: dict[str, Any] = {
    "factors_from": {
        "enum": ["weighted_features", "residuals"],
        "default": "weighted_features",
        "description": "learn from features weighted by how far the covariates leave them alone, or from residuals",
    },
    "factors": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
        "description": "surrogate variables of each pool; empty: as many as exceed permuted residuals",
    },
    "permutations": {
        "type": "integer",
        "minimum": 20,
        "default": 100,
        "description": "permutations that tell the number of surrogate variables",
    },
    "significance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 0.5,
        "default": 0.1,
        "description": "a surrogate variable counts where fewer permutations than this exceed it",
    },
    "iterations": {
        "type": "integer",
        "minimum": 1,
        "default": 20,
        "description": "rounds of weighting the features (the R package has 5, which seldom suffice for few)",
    },
    "standardize": {
        "type": "boolean",
        "default": True,
        "description": "give every feature the same variance before the surrogate variables are found",
    },
}


class SurrogateVariables(DirectMethod):
    """Takes off every feature what follows the surrogate variables of its pool, beside the covariates."""

    id: ClassVar[str] = "sva"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Surrogate variable analysis (SVA)"
    capabilities: ClassVar[Capabilities] = Capabilities(train_apply=True, without_eb=True)
    limits: ClassVar[tuple[str, ...]] = (
        "For unknown batches. Known scanners are corrected by a method that names them beforehand; the batch labels "
        "are not used here.",
        "Whatever many features share beside the covariates is removed: disease, age or treatment that is not a "
        "covariate goes with it.",
        "Corrects additive effects only; differences of scale between scanners remain.",
        "Where nearly every feature follows the covariates (age in all regions) no feature is left to tell the "
        "factors, and the method refuses; factors_from residuals learns even so, but leaves what of a hidden batch "
        "goes with a covariate.",
        "Tests on the corrected values are too sure: the surrogate variables were estimated from those values. Put "
        "them beside the covariates in the analysis instead.",
        "Weights rest on local false discovery rates over the features of a pool and are uncertain for few features.",
        "The number of surrogate variables, unless planned, is chosen by the data.",
        "New scans must be like those fitted: the frozen loadings know no factor that was not there. Takes no "
        "missing values.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.surrogate",
        "harmonization_app.algorithms.surrogate_pools",
        "harmonization_app.algorithms.sva",
    )

    def parameters_schema(self) -> dict[str, Any]:
        return method_schema(OPTIONS, without_eb("pools"))

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where biology is not named, or the features of a pool do not give the factors; tell their number."""
        options = read_options(self.parameters_schema(), specification)
        if not specification.covariates:
            message = (
                "The plan names no covariate: all that the features share would be removed, biology included. Name "
                "the effects to preserve."
            )
            return [Finding("covariates_needed", "stop", message)]
        findings = _check_pools(dataset, specification, options)
        if not stops(findings):
            try:
                for estimate in estimate_pools(dataset, specification, options):
                    findings += _describe(estimate, dataset, specification)
            except HarmonizationRefused as refusal:
                findings += refusal.findings
        return findings

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        arrays: dict[str, npt.NDArray[Any]] = {}
        membership = np.eye(len(design.batches))[design.codes][:, 1:]
        covariates = design.covariates
        for position, estimate in enumerate(estimate_pools(dataset, specification, options)):
            columns, own = estimate.columns, estimate.surrogates
            factors = own.factors(dataset.values[:, columns], covariates)
            found = {
                "columns": columns,
                **{name: getattr(own, name) for name in LEARNT},
                "weights": estimate.weights,
                "explained_by_covariates": variance_explained(factors, covariates),
                "explained_by_batch": variance_explained(factors, membership),
            }
            arrays |= {f"{name}_{position}": array for name, array in found.items()}
        return arrays

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate the surrogate variables; `facts` tell for each pool how many and what they go with."""
        model = super().fit(dataset, specification)
        pools = [pool.name for pool in specification.pools] or ["all"]
        told = {
            pool: {
                "factors": model.arrays[f"loadings_{position}"].shape[1],
                "explained_by_covariates": model.arrays[f"explained_by_covariates_{position}"].tolist(),
                "explained_by_batch": model.arrays[f"explained_by_batch_{position}"].tolist(),
            }
            for position, pool in enumerate(pools)
        }
        return replace(model, facts={**model.facts, "surrogate_variables": told})

    def flags(self, dataset: Dataset, arrays: Arrays) -> dict[str, tuple[str, ...]]:
        return flagged(dataset, {"constant": np.ptp(dataset.values, axis=0) == 0})

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        corrected = dataset.values.copy()
        covariates = code_covariates(dataset, model.coding)
        position = 0
        while f"columns_{position}" in model.arrays:
            columns = model.arrays[f"columns_{position}"]
            own = Surrogates(*(model.arrays[f"{name}_{position}"] for name in LEARNT))
            corrected[:, columns] -= own.factors(dataset.values[:, columns], covariates) @ own.effects
            position += 1
        return corrected


def _check_pools(dataset: Dataset, specification: Specification, options: Mapping[str, Any]) -> list[Finding]:
    """Return stops for pools of too few features or, unless standardized, of several units."""
    findings = []
    for pool, columns in varying_pools(dataset, specification).items():
        units = sorted({dataset.units[i] or "no unit" for i in columns})
        if len(units) > 1 and not options["standardize"]:
            message = (
                f"Pool {pool} mixes {listed(tuple(units))}: without standardize the largest numbers decide. Plan "
                "standardize, or a pool for each unit."
            )
            findings.append(Finding("mixed_units_in_pool", "stop", message))
        if len(columns) < LEAST_FEATURES:
            message = (
                f"Pool {pool} has {len(columns)} varying feature(s); at least {LEAST_FEATURES} are needed."
            )
            findings.append(Finding("too_few_features", "stop", message))
        elif len(columns) < FEW_FEATURES:
            message = f"Pool {pool} has {len(columns)} features; which of them tell the hidden factors is uncertain."
            findings.append(Finding("few_features", "warn", message))
    return findings


def _describe(estimate: Estimate, dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return how many surrogate variables a pool has, and what makes them doubtful."""
    pool, own = estimate.pool, estimate.surrogates
    factors = own.loadings.shape[1]
    if not factors:
        message = f"Pool {pool} has no surrogate variable beyond chance; its values stay as they are."
        return [Finding("no_surrogate_variable", "warn", message)]
    findings = [Finding("surrogate_variables", "info", f"Pool {pool} has {factors} surrogate variable(s).")]
    if estimate.change > SETTLED_BELOW:
        message = (
            f"Pool {pool}: the weight of a feature still changed by {estimate.change:.2f} in the last round; which "
            "features tell the surrogate variables is not settled. Plan more iterations or other factors."
        )
        findings.append(Finding("weights_not_settled", "warn", message))
    covariates = build_design(dataset, specification).covariates
    values = dataset.values[:, estimate.columns]
    scores = own.factors(values, covariates)
    followed = float(variance_explained(scores, covariates).max())
    if followed > WARN_EXPLAINED_ABOVE:
        message = (
            f"Pool {pool}: the covariates explain {followed:.0%} of a surrogate variable; what it removes and what "
            "they preserve can hardly be told apart."
        )
        findings.append(Finding("surrogate_follows_covariates", _severity(followed), message))
    held = float(variance_explained(values, scores).mean())
    if held > WARN_REMOVED_ABOVE:
        message = (
            f"Pool {pool}: its surrogate variables hold {held:.0%} of the variance of a feature on average; little is "
            "left when they are removed. Plan fewer factors, or pools of less alike features."
        )
        findings.append(Finding("surrogates_hold_most", _severity(held), message))
    return findings


def _severity(share: float) -> Severity:
    return "stop" if share > STOP_ABOVE else "warn"
