"""Functional normalization: unwanted factors regressed out of each scan's quantile function.

Sources: Fortin et al., Genome Biol 15:503 (2014), section "Functional normalization"; one of the methods that Fortin et
al., NeuroImage 161:149 (2017), compare. For derived features it is defined here so: of each scan the p values of a
feature pool, all in one unit, are sorted; the k-th of them is the scan's quantile q(k). Over scans, for each k,
q(k) = a(k) + Z b(k) + X c(k) + e, where Z are the unwanted factors (the batches, weighted to sum to zero over the
scans, or the first principal components of standardized control features) and X the plan's covariates, which the
original does not have. q(k) - Z b(k), made non-decreasing by its running maximum as in minfi, replaces the value of
rank k; equal values get the mean over their ranks. In 20 simulations (4 sites of 40 scans, 60 features, a rising
quadratic curve per site) 2 % of the mean square of what was planted are left in the median, 12 % at most, where little
was planted; the slope on age stays within 1 %.

Limits: one curve for all features of a pool, by rank: effects on single regions remain, and where features keep their
ranks in all scans it is a regression of each feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import Capabilities, Dataset, Finding, FloatArray, IntArray, Result
from harmonization_app.algorithms.design import (
    build_design,
    feature_positions,
    merged_labels,
    select_features,
)
from harmonization_app.algorithms.direct import WITHOUT_EB, DirectMethod, batch_positions
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.ranks import tie_limits
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed

# A quantile function through fewer values is no function.
LEAST_FEATURES = 10
# Part of the mean SD of a pool's features from which a value moved to keep the order is told.
LARGE_MOVE = 0.1
# Singular values below this part of the largest are rounding.
RANK_RATIO = 1e-8
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
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=False,
        reference_batch=False,
        train_apply=True,
        nonparametric=False,
        mean_only=False,
        without_eb=True,
    )
    limits: ClassVar[tuple[str, ...]] = (
        "One curve by rank for all features of a pool: scanner effects on single regions remain.",
        "Features of one pool must be in one unit and measure like things; a pool of volumes and thicknesses has no "
        "quantile function.",
        f"Made for thousands of values per scan; with few features (less than {LEAST_FEATURES} are refused) a rank is "
        "nearly a feature.",
        "What the covariates of the plan do not explain and goes with the factors is removed, biology included.",
        "Values whose order the correction turns are made equal; the run names scans in which that matters.",
        "With control features, batch effects that those do not show stay. Takes no missing values.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.functional_normalization",
        "harmonization_app.algorithms.ranks",
    )

    def parameters_schema(self) -> dict[str, Any]:
        fixed = {name: value for name, value in WITHOUT_EB.items() if name != "pools"}
        return method_schema(OPTIONS, fixed)

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where a pool is no sample of one quantity, or the factors cannot be learnt."""
        options = read_options(self.parameters_schema(), specification)
        lacking = tuple(name for name in options["controls"] if name not in dataset.features)
        if lacking:
            message = f"The control feature(s) {listed(lacking)} are not among the features."
            return [Finding("control_lacking", "stop", message, columns=lacking)]
        findings = _check_pools(dataset, specification, options)
        return findings or _check_factors(dataset, specification, options)

    def learn(
        self,
        dataset: Dataset,
        codes: IntArray,
        batches: int,
        specification: Specification,
        options: Mapping[str, Any],
    ) -> dict[str, npt.NDArray[Any]]:
        controls = feature_positions(dataset, options["controls"])
        arrays: dict[str, npt.NDArray[Any]] = {"controls": controls}
        if options["factors_from"] == "batch":
            factors = (codes[:, None] == np.arange(batches)).astype(np.float64)
        else:
            arrays |= _learn_controls(dataset.values[:, controls], options["factors"])
            factors = np.hstack([_control_factors(arrays, dataset), np.ones((len(codes), 1))])
        covariates = build_design(dataset, specification).covariates
        spread = np.where(covariates.std(axis=0) > 0, covariates.std(axis=0), 1.0)
        design = np.hstack([factors, (covariates - covariates.mean(axis=0)) / spread])
        for position, columns in enumerate(_pools(dataset, specification, options).values()):
            quantiles = np.sort(dataset.values[:, columns], axis=1)
            middle = quantiles.mean(axis=0)
            effects = np.linalg.lstsq(design, quantiles - middle, rcond=None)[0]
            effects = effects[: batches if options["factors_from"] == "batch" else options["factors"]]
            if options["factors_from"] == "batch":
                effects = effects - (np.bincount(codes, minlength=batches) / len(codes)) @ effects
            spread_of_pool = dataset.values[:, columns].std(axis=0).mean(keepdims=True)
            arrays |= {
                f"columns_{position}": columns,
                f"effect_{position}": effects,
                f"spread_{position}": spread_of_pool,
            }
        return arrays

    def flags(self, dataset: Dataset, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[str, ...]]:
        controls = tuple(dataset.features[int(i)] for i in arrays["controls"])
        return {"control_feature": controls} if controls else {}

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans by the frozen curves, and name those in which the order of values turned. Raises
        HarmonizationRefused.
        """
        result = super().apply(model, dataset)
        dataset = select_features(dataset, model.features)
        labels = [str(label) for label in merged_labels(dataset, model.specification)]
        turned = np.zeros(len(dataset.rows), dtype=bool)
        pools = _targets(model, dataset, batch_positions(labels, model.batches))
        for position, (_, _, target) in enumerate(pools):
            moved = (np.maximum.accumulate(target, axis=1) - target).max(axis=1)
            turned |= moved > LARGE_MOVE * model.arrays[f"spread_{position}"]
        rows = tuple(row for row, own in zip(dataset.rows, turned, strict=True) if own)
        if not rows:
            return result
        message = (
            f"In {len(rows)} of {len(dataset.rows)} scan(s) the correction turned the order of values; making them "
            f"equal moved one by more than {LARGE_MOVE:.0%} of a feature's SD: {listed(rows)}."
        )
        finding = Finding("quantiles_cross", "warn", message, rows=rows)
        return replace(result, findings=(*result.findings, finding))

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
    factors = None if by_batch else _control_factors(model.arrays, dataset)
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


def _mean_over_ties(ranked: FloatArray, target: FloatArray) -> FloatArray:
    """Return the targets [scans x ranks] with their mean wherever the ranked values are equal."""
    first, last = (limit.T for limit in tie_limits(ranked.T))
    if (last - first == 1).all():
        return target
    sums = np.hstack([np.zeros((len(target), 1)), np.cumsum(target, axis=1)])
    upto, before = (np.take_along_axis(sums, limit, axis=1) for limit in (last, first))
    means = (upto - before) / (last - first)
    return np.asarray(np.where(last - first == 1, target, means))


def _pools(dataset: Dataset, specification: Specification, options: Mapping[str, Any]) -> dict[str, IntArray]:
    """Return the columns of each pool less the control features."""
    pools = {pool.name: pool.features for pool in specification.pools} or {"all": dataset.features}
    controls = set(options["controls"])
    return {
        pool: feature_positions(dataset, [name for name in features if name not in controls])
        for pool, features in pools.items()
    }


def _learn_controls(own: FloatArray, factors: int) -> dict[str, FloatArray]:
    """Return centre and spread of the controls and the rotation onto their first components."""
    centre, spread = own.mean(axis=0), own.std(axis=0, ddof=1)
    _, _, rotation = np.linalg.svd((own - centre) / spread, full_matrices=False)
    return {"centre": centre, "spread": spread, "rotation": rotation[:factors].T}


def _control_factors(arrays: Mapping[str, npt.NDArray[Any]], dataset: Dataset) -> FloatArray:
    own = dataset.values[:, arrays["controls"]]
    return np.asarray(((own - arrays["centre"]) / arrays["spread"]) @ arrays["rotation"])


def _check_pools(dataset: Dataset, specification: Specification, options: Mapping[str, Any]) -> list[Finding]:
    """Return stops for pools of several units, known or not, and for pools of too few features."""
    findings = []
    for pool, columns in _pools(dataset, specification, options).items():
        units = sorted({dataset.units[i] for i in columns})
        if len(units) > 1:
            named = listed(tuple(unit or "no unit" for unit in units))
            message = (
                f"Pool {pool} mixes {named}: there is no common quantile function. Plan a pool for each unit."
            )
            findings.append(Finding("mixed_units_in_pool", "stop", message))
        if len(columns) < LEAST_FEATURES:
            message = (
                f"Pool {pool} has {len(columns)} feature(s) to correct; a quantile function needs at least "
                f"{LEAST_FEATURES}."
            )
            findings.append(Finding("too_few_features", "stop", message))
    return findings


def _check_factors(
    dataset: Dataset, specification: Specification, options: Mapping[str, Any]
) -> list[Finding]:
    """Return a stop where the plan's factors and controls do not fit together, or the scans do not give them."""
    names = options["controls"]
    if options["factors_from"] == "batch":
        message = "The plan names control features, but takes the factors from the batches; plan one of them."
        return [Finding("controls_not_used", "stop", message, columns=tuple(names))] if names else []
    controls = feature_positions(dataset, names)
    flat = tuple(dataset.features[i] for i in controls if np.ptp(dataset.values[:, i]) == 0)
    if flat:
        message = f"The control feature(s) {listed(flat)} have one value in all scans and show nothing."
        return [Finding("control_constant", "stop", message, columns=flat)]
    found = min(_rank(_standardized(dataset.values[:, controls])), len(dataset.rows) - 2) if names else 0
    if options["factors"] > found:
        message = (
            f"The control features and scans give at most {found} factor(s); plan no more, or more controls."
        )
        return [Finding("too_many_factors", "stop", message, columns=tuple(names))]
    factors = _control_factors(
        _learn_controls(dataset.values[:, controls], options["factors"]) | {"controls": controls}, dataset
    )
    covariates = build_design(dataset, specification).covariates
    varying = covariates[:, np.ptp(covariates, axis=0) > 0]
    whole = np.hstack([_standardized(factors), _standardized(varying)])
    if _rank(whole) < whole.shape[1] or len(dataset.rows) < whole.shape[1] + 2:
        message = (
            "The covariates explain a factor of the control features, or there are too few scans for both: what is "
            "biology and what is not cannot be told apart. Plan fewer factors or other controls."
        )
        return [Finding("factors_confounded", "stop", message, columns=tuple(names))]
    return []


def _standardized(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0, ddof=1))


def _rank(values: FloatArray) -> int:
    return int(np.linalg.matrix_rank(values, tol=RANK_RATIO * np.linalg.norm(values, 2)))
