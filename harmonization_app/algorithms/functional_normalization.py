"""Functional normalization: unwanted factors regressed out of each scan's quantile function.

Sources: Fortin et al., Genome Biol 15:503 (2014), section "Functional normalization"; one of the methods that Fortin et
al., NeuroImage 161:149 (2017), compare. For derived features it is defined here so: of each scan the p values of a
feature pool, all in one unit, are sorted; the k-th of them is the scan's quantile q(k). Over scans, for each k, q(k) =
a(k) + Z b(k) + X c(k) + e, where Z are the unwanted factors (the batches, weighted to sum to zero over the scans, or
the first principal components of standardized control features) and X the plan's covariates, which the original does
not have. q(k) - Z b(k), made non-decreasing by its running maximum as in minfi, replaces the value of rank k; equal
values get the mean over their ranks. By control features and without covariates it equals minfi's (git 090cc10)
components, regression and running maximum within 1e-14 feature SD; minfi's cutting of control values at 3 SD, fixed
outermost quantiles and non-negative values belong to microarrays and are left out. In 20 simulations (4 sites of 40
scans, 60 features, a rising quadratic curve per site) 2 % of the mean square of what was planted are left in the
median, 12 % at most, where little was planted; the slope on age stays within 1 %.

Limits: one curve for all features of a pool, by rank: effects on single regions remain, and where features keep their
ranks in all scans it is a regression of each feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    IntArray,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.control_factors import control_factors, lacking_controls, learn_controls
from harmonization_app.algorithms.design import Design, feature_positions, known_codes, select_features
from harmonization_app.algorithms.direct import DirectMethod, without_eb
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import flagged
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.quantile_pools import (
    LEAST_FEATURES,
    check_factors,
    check_pools,
    quantile_pools,
)
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed

# A value moved to keep the order of a scan, in SD of its feature: told above the first, refused above the second.
LARGE_MOVE_SD, WRONG_MOVE_SD = 0.25, 2.0
OPTIONS: dict[str, Any] = {
    "factors_from": {
        "enum": ["batch", "controls"],
        "default": "batch",
        "description": "what the unwanted factors are: the batches, or components of the control features",
    },
    "controls": {
        "type": "array",
        "items": {"type": "string"},
        "uniqueItems": True,
        "default": [],
        "description": "features that biology does not change; they pass through",
    },
    "factors": {
        "type": "integer",
        "minimum": 1,
        "default": 2,
        "description": "components of the control features",
    },
}


class FunctionalNormalization(DirectMethod):
    """Takes off each scan's quantile function, pool by pool, what batches or control features explain of it."""

    id: ClassVar[str] = "functional-normalization"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Functional normalization"
    capabilities: ClassVar[Capabilities] = Capabilities(train_apply=True, without_eb=True)
    limits: ClassVar[tuple[str, ...]] = (
        "One curve by rank for all features of a pool: scanner effects on single regions remain.",
        "Features of one pool must be in one unit and measure like things; a pool of volumes and thicknesses has no "
        "quantile function.",
        f"Made for thousands of values per scan; with few features (less than {LEAST_FEATURES} are refused) a rank is "
        "nearly a feature.",
        "What the covariates of the plan do not explain and goes with the factors is removed, biology included.",
        "Values whose order the correction turns are made equal; scans in which that matters are named, or refused.",
        "With control features, batch effects that those do not show stay. Takes no missing values.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.control_factors",
        "harmonization_app.algorithms.functional_normalization",
        "harmonization_app.algorithms.quantile_pools",
    )

    def parameters_schema(self) -> dict[str, Any]:
        return method_schema(OPTIONS, without_eb("pools"))

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where a pool is no sample of one quantity, or the factors cannot be learnt."""
        options = read_options(self.parameters_schema(), specification)
        return (
            lacking_controls(dataset, options["controls"])
            or check_pools(dataset, specification, options)
            or check_factors(dataset, specification, options)
        )

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        controls = feature_positions(dataset, options["controls"])
        arrays: dict[str, npt.NDArray[Any]] = {"controls": controls}
        by_batch = options["factors_from"] == "batch"
        if by_batch:
            factors = np.eye(len(design.batches))[design.codes]
        else:
            arrays |= learn_controls(dataset.values[:, controls], options["factors"])
            factors = np.hstack([control_factors(arrays, dataset), np.ones((len(dataset.rows), 1))])
        covariates = design.covariates
        spread = np.where(covariates.std(axis=0) > 0, covariates.std(axis=0), 1.0)
        whole = np.hstack([factors, (covariates - covariates.mean(axis=0)) / spread])
        for position, columns in enumerate(quantile_pools(dataset, specification, options).values()):
            quantiles = np.sort(dataset.values[:, columns], axis=1)
            effects = np.linalg.lstsq(whole, quantiles - quantiles.mean(axis=0), rcond=None)[0]
            if by_batch:
                effects = effects[: len(design.batches)]
                effects = effects - (design.batch_sizes / len(dataset.rows)) @ effects
            else:
                effects = effects[: options["factors"]]
            found = {"columns": columns, "effect": effects, "spread": dataset.values[:, columns].std(axis=0)}
            arrays |= {f"{name}_{position}": array for name, array in found.items()}
        return arrays

    def flags(self, dataset: Dataset, arrays: Arrays) -> dict[str, tuple[str, ...]]:
        controls = tuple(dataset.features[int(i)] for i in arrays["controls"])
        constant = flagged(dataset, {"constant": np.ptp(dataset.values, axis=0) == 0})
        return {**({"control_feature": controls} if controls else {}), **constant}

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans by the frozen curves, and name those in which the order of values turned. Raises
        HarmonizationRefused, also where the order turned so far that a value would be wrong.
        """
        result = super().apply(model, dataset)
        dataset = select_features(dataset, model.features)
        moved = _largest_moves(model, dataset, known_codes(dataset, model.specification, model.batches))
        findings = _turned(dataset, moved)
        require_no_stops(findings)
        return replace(result, findings=(*result.findings, *findings))

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        corrected = dataset.values.copy()
        for columns, order, target in _targets(model, dataset, codes):
            rising = np.maximum.accumulate(target, axis=1)
            ranked = np.take_along_axis(dataset.values[:, columns], order, axis=1)
            own = np.empty_like(rising)
            np.put_along_axis(own, order, _mean_over_ties(ranked, rising), axis=1)
            corrected[:, columns] = own
        return corrected


def _targets(
    model: Model, dataset: Dataset, codes: IntArray
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """Yield each pool's columns, the order of each scan's values and what they become, rank by rank."""
    options = model.specification.options
    by_batch = options.get("factors_from", "batch") == "batch"
    factors = None if by_batch else control_factors(model.arrays, dataset)
    position = 0
    while f"columns_{position}" in model.arrays:
        columns, effect = (model.arrays[f"{name}_{position}"] for name in ("columns", "effect"))
        order = np.argsort(dataset.values[:, columns], axis=1, kind="stable")
        ranked = np.take_along_axis(dataset.values[:, columns], order, axis=1)
        yield (
            columns,
            order.astype(np.int64),
            ranked - (effect[codes] if factors is None else factors @ effect),
        )
        position += 1


def _largest_moves(model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
    """Return for each scan the farthest a value is moved to keep the order, in SD of its feature."""
    largest = np.zeros(len(dataset.rows))
    for position, (_, order, target) in enumerate(_targets(model, dataset, codes)):
        moves = np.maximum.accumulate(target, axis=1) - target
        largest = np.maximum(largest, (moves / model.arrays[f"spread_{position}"][order]).max(axis=1))
    return largest


def _turned(dataset: Dataset, moved: FloatArray) -> list[Finding]:
    findings = []
    limits = {"stop": (WRONG_MOVE_SD, np.inf), "warn": (LARGE_MOVE_SD, WRONG_MOVE_SD)}
    for severity, (low, high) in limits.items():
        rows = tuple(np.array(dataset.rows)[(moved > low) & (moved <= high)].tolist())
        if rows:
            message = (
                f"In {len(rows)} of {len(dataset.rows)} scan(s) the correction turned the order of values; keeping it "
                f"moved one by more than {low:g} SD of its feature: {listed(rows)}."
            )
            if severity == "stop":
                message += " Their values do not follow the others' quantiles: leave these scans out, or plan ComBat."
            findings.append(Finding("quantiles_cross", severity, message, rows=rows))  # type: ignore[arg-type]
    return findings


def _mean_over_ties(ranked: FloatArray, target: FloatArray) -> FloatArray:
    """Return the targets [scans x ranks] with their mean wherever the ranked values are equal."""
    new = np.hstack([np.ones((len(ranked), 1), dtype=bool), ranked[:, 1:] != ranked[:, :-1]]).ravel()
    if new.all():
        return target
    starts = np.flatnonzero(new)
    sizes = np.diff(starts, append=new.size)
    return np.asarray(np.repeat(np.add.reduceat(target.ravel(), starts) / sizes, sizes).reshape(target.shape))
