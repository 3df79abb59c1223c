"""GMM ComBat with the mixture written out scan by scan of one feature at a time (Horng et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import (
    Correction,
    correct_pools,
    fit_pools,
    named_iterations,
)

# The definition's stop: a move of the means of standardized values, most steps, least variance.
TOLERANCE, STEPS, FLOOR = 1e-7, 500, 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class _Component:
    weight: float
    mean: float
    variance: float

    def density(self, values: FloatArray) -> FloatArray:
        squares = (values - self.mean) ** 2 / self.variance
        return np.asarray(self.weight * np.exp(-squares / 2) / math.sqrt(2 * math.pi * self.variance))


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized with the grouping that a feature of `fitted` shows."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken. Raises ValueError where a step could not be computed for every feature."""
    learnt_groups, groups = _groups(fitted, specification, scans)
    design = plain_covariates(fitted, specification)
    own = plain_covariates(scans, specification, fitted)
    steps = {"batch": (plain_batches(fitted, specification), plain_batches(scans, specification))}
    if specification.options["grouping"] == "batch":
        steps = {"hidden_grouping": (learnt_groups, groups), **steps}
    else:
        design = np.column_stack([design, [group == "upper" for group in learnt_groups]])
        own = np.column_stack([own, [group == "upper" for group in groups]])
    learnt, values = fitted, scans.values
    iterations: dict[str, Mapping[str, int]] = {}
    for name, (learnt_batches, batches) in steps.items():
        fit = fit_pools(learnt, learnt_batches, design, specification, measured=fitted)
        if fit.unchecked.any():
            raise ValueError("every step needs every feature, too many for priors without parameters")
        values = correct_pools(fit, values, batches, own)
        learnt = learnt.with_values(correct_pools(fit, learnt.values, learnt_batches, design))
        iterations |= named_iterations(fit, name)
    return Correction(values, iterations)


def _groups(fitted: Dataset, specification: Specification, scans: Dataset) -> tuple[list[str], list[str]]:
    """Return the component of each scan of both datasets, by the feature with the greatest gain."""
    share = specification.options.get("minimum_share", 0.25)
    named = specification.options.get("feature")
    best, found = -math.inf, None
    for column, name in enumerate(fitted.features):
        values = fitted.values[:, column]
        if (named is not None and name != named) or np.isnan(values).any() or np.ptp(values) == 0:
            continue
        middle, spread = values.mean(), values.std()
        components, gain = _mixture((values - middle) / spread, share)
        groups = [_assign(components, table, column, middle, spread) for table in (fitted, scans)]
        part = groups[0].count("upper") / len(values)
        if min(part, 1 - part) >= share and gain > best:
            best, found = gain, (groups[0], groups[1])
    if found is None:
        raise ValueError("no feature has two components of sufficient size")
    return found


def _assign(
    components: tuple[_Component, _Component], table: Dataset, column: int, middle: float, spread: float
) -> list[str]:
    standard = (table.values[:, column] - middle) / spread
    upper = components[1].density(standard) > components[0].density(standard)
    return ["upper" if own else "lower" for own in upper]


def _mixture(standard: FloatArray, share: float) -> tuple[tuple[_Component, _Component], float]:
    """Return the two components, lower mean first, and the AIC they save against one normal distribution."""
    upper = (standard > _split(standard, share)).astype(float)
    components = _component(standard, 1 - upper), _component(standard, upper)
    for _ in range(STEPS):
        densities = [component.density(standard) for component in components]
        upper = densities[1] / (densities[0] + densities[1])
        before, components = components, (_component(standard, 1 - upper), _component(standard, upper))
        if max(abs(new.mean - old.mean) for new, old in zip(components, before, strict=True)) <= TOLERANCE:
            break
    total = components[0].density(standard) + components[1].density(standard)
    one = -0.5 * len(standard) * (math.log(2 * math.pi) + 1)
    gain = 2 * (float(np.log(total).sum()) - one) - 6
    low, high = sorted(components, key=lambda component: component.mean)
    return (low, high), gain


def _split(standard: FloatArray, share: float) -> float:
    """Return the greatest value of the lower part where the squares within both parts are least."""
    ranked = np.sort(standard)
    least = max(2, math.ceil(share * len(ranked)))
    within = {
        size: float(ranked[:size].var() * size + ranked[size:].var() * (len(ranked) - size))
        for size in range(least, len(ranked) - least + 1)
    }
    return float(ranked[min(within, key=lambda size: within[size]) - 1])


def _component(standard: FloatArray, belonging: FloatArray) -> _Component:
    size = float(belonging.sum())
    mean = float((belonging * standard).sum()) / size
    variance = float((belonging * (standard - mean) ** 2).sum()) / size
    return _Component(size / len(standard), mean, max(variance, FLOOR))


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = (
        _with_hidden_group(table, seed) for table, seed in zip(case_input(), (9, 10), strict=True)
    )
    corrected = replace(PLAIN_SPECIFICATION, options={"grouping": "batch"})
    protected = replace(PLAIN_SPECIFICATION, options={"grouping": "protect"})
    yield Input("corrected", dataset, corrected)
    yield Input("protected", dataset, protected)
    yield Input(
        "planned_feature", dataset, replace(corrected, options={"grouping": "batch", "feature": "region_07"})
    )
    yield Input("without_eb", dataset, replace(protected, eb=False))
    yield Input("apply_corrected", dataset, corrected, new)
    yield Input("apply_protected", dataset, protected, new)


def _with_hidden_group(dataset: Dataset, seed: int) -> Dataset:
    """Return the dataset with a shift of every other feature in two scans of five."""
    hidden = np.random.default_rng(seed).random(len(dataset.rows)) < 0.4
    shift = np.where(np.arange(dataset.values.shape[1]) % 2 == 1, 1.4, 0.0)
    shift[1] = 0.9
    return dataset.with_values((dataset.values + np.outer(hidden, shift)).round(4))
