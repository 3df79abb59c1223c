"""ComBat-GAM feature by feature: mgcv's basis and parameters written out, one penalized least squares per feature.

The kernel's eigenvectors come from a dense decomposition, the constraints are imposed by explicit reflections, and
the penalties are searched on the whole design.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.plain import Array, Bools, Modes, Setting, plain_fit
from harmonization_app.algorithms.verification.plain_penalty import (
    Penalized,
    WholeDesign,
    gcv_steps,
    least,
    reml_steps,
)
from harmonization_app.algorithms.verification.pooled import Correction, correct_pools, pool_columns

MOST_KNOTS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class _Smooth:
    """One smooth learnt from fitted values: columns of any values, their penalty, mean squares of the columns."""

    knots: FloatArray
    middle: float
    weights: FloatArray
    reflection: FloatArray
    penalty: FloatArray
    start: float
    squares: FloatArray
    pulls: FloatArray

    def columns(self, values: FloatArray) -> FloatArray:
        bent = np.abs(values[:, None] - self.knots) ** 3 / 12 @ self.weights[: len(self.knots)]
        line = np.column_stack([np.ones_like(values), values - self.middle]) @ self.weights[len(self.knots) :]
        return np.asarray(((bent + line) @ self.reflection)[:, 1:])


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`."""
    return compute(fitted, specification, scans).values


def compute(fitted: Dataset, specification: Specification, scans: Dataset) -> Correction:
    """Return the same with the steps taken."""
    smooths = {
        name: _learn(np.array(fitted.covariates[name], dtype=np.float64), own.get("basis_size", 10))
        for name, own in specification.options["smooths"].items()
    }
    modes = Modes(
        eb=specification.eb,
        parametric=specification.parametric,
        mean_only=specification.mean_only,
        reference=specification.reference_batch,
        minimum=specification.minimum_scans,
        seed=specification.seed,
    )
    design = _design(fitted, specification, fitted, smooths)
    solve = _Solve(fitted, specification, smooths)
    batches, pools = plain_batches(fitted, specification), pool_columns(fitted, specification)
    fit = plain_fit(fitted.values, batches, design, pools, modes, solve)
    own = _design(scans, specification, fitted, smooths)
    values = correct_pools(fit, scans.values, plain_batches(scans, specification), own)
    return Correction(values, fit.iterations, fit.unchecked)


class _Solve:
    """Penalized least squares of one feature, in the place of plain least squares.

    A feature with missing values has a design of its own: the columns of all scans, in the parameters that mgcv would
    give them on the scans that show it.
    """

    def __init__(self, fitted: Dataset, specification: Specification, smooths: dict[str, _Smooth]) -> None:
        self.options = {"penalty": "gcv", "search": "mgcv", **specification.options}
        self.fitted, self.specification, self.smooths = fitted, specification, smooths
        self.surplus = int(any(covariate.kind == "categorical" for covariate in specification.covariates))
        self.designs: dict[bytes, tuple[Array, WholeDesign, Array]] = {}

    def __call__(
        self, column: FloatArray, setting: Setting, reference: str | None
    ) -> tuple[float, FloatArray, float]:
        levels, seen = setting.levels, ~np.isnan(column)
        indicators = (setting.labels[:, None] == np.array(levels)).astype(float)
        if seen.tobytes() not in self.designs:
            self.designs[seen.tobytes()] = self._of(seen, indicators)
        design, whole, start = self.designs[seen.tobytes()]
        level = float(column[seen].mean())
        problem = Penalized(column[seen] - level, whole)
        coefficients = problem.coefficients(self._search(problem, start))
        residuals = problem.values - design @ coefficients
        if not seen.all():
            shared = np.hstack([indicators, setting.scaled * setting.width + setting.middle])[seen]
            coefficients = np.linalg.lstsq(shared, design @ coefficients, rcond=None)[0]
        intercepts, slopes = coefficients[: len(levels)], coefficients[len(levels) :]
        if reference is None:
            mean = float(np.mean(indicators, axis=0) @ intercepts)
            variance = float(np.mean(residuals**2))
        else:
            mean = float(intercepts[levels.index(reference)])
            variance = float(np.mean(residuals[setting.labels[seen] == reference] ** 2))
        return mean + level + float(setting.middle @ slopes), slopes * setting.width, variance**0.5

    def _of(self, seen: Bools, indicators: Array) -> tuple[Array, WholeDesign, Array]:
        """Return the design of the scans `seen`, what the search needs of it, and the first penalties."""
        smooths = self.smooths
        if not seen.all():
            given = {name: np.array(self.fitted.covariates[name], dtype=np.float64) for name in smooths}
            sizes = {name: len(smooth.penalty) + 1 for name, smooth in smooths.items()}
            smooths = {name: _learn(values, sizes[name], seen) for name, values in given.items()}
        covariates = _design(self.fitted, self.specification, self.fitted, smooths)
        design = np.hstack([indicators, covariates])[seen]
        own = list(smooths.values())
        return design, self._whole(design, own), _common_start(own)

    def _whole(self, design: Array, smooths: list[_Smooth]) -> WholeDesign:
        penalties, size = [], design.shape[1]
        at = size - sum(len(smooth.penalty) for smooth in smooths)
        for smooth in smooths:
            whole = np.zeros((size, size))
            whole[at : at + len(smooth.penalty), at : at + len(smooth.penalty)] = smooth.penalty
            penalties.append(whole)
            at += len(smooth.penalty)
        ranks = tuple(len(smooth.penalty) - 1 for smooth in smooths)
        surplus = 0 if self.options["search"] == "least" else self.surplus
        return WholeDesign.of(design, penalties, ranks, surplus)

    def _search(self, problem: Penalized, first: Array) -> FloatArray:
        if self.options["search"] == "least":
            return least(problem, self.options["penalty"])
        if self.options["penalty"] == "gcv":
            return gcv_steps(problem.gcv(), first)
        start = np.append(first, np.log(np.mean(problem.values**2) / 10))
        return reml_steps(problem.reml(), start)[:-1]


def _design(
    dataset: Dataset, specification: Specification, fitted: Dataset, smooths: dict[str, _Smooth]
) -> FloatArray:
    rest = tuple(item for item in specification.covariates if item.name not in smooths)
    parts = [plain_covariates(dataset, replace(specification, covariates=rest), fitted)]
    for name, smooth in smooths.items():
        parts.append(smooth.columns(np.array(dataset.covariates[name], dtype=np.float64)))
    return np.hstack(parts)


def _learn(values: FloatArray, size: int, seen: Bools | None = None) -> _Smooth:
    """Return mgcv's s(x, k=size): eigenvectors in falling order, constraints reflected away, columns of unit size.

    All `values` are knots; those `seen` are the data.
    """
    knots = np.unique(values)
    values = values if seen is None else values[seen]
    if len(knots) > MOST_KNOTS:
        knots = knots[np.round(np.linspace(0, len(knots) - 1, MOST_KNOTS)).astype(int)]
    kernel = np.abs(knots[:, None] - knots) ** 3 / 12
    lengths, vectors = np.linalg.eigh(kernel)
    kept = np.sort(np.argsort(np.abs(lengths))[-size:])[::-1]
    vectors = vectors[:, kept] if len(knots) > size else np.eye(size)
    conditions = np.vstack([np.ones(len(knots)), knots - values.mean()]) @ vectors
    turn = np.eye(size)
    for row in range(2):
        turn = turn @ _reflection((conditions @ turn)[row], size - row - 1, size - row)
    turn = turn[:, : size - 2]
    weights = np.zeros((len(knots) + 2, size))
    weights[: len(knots), : size - 2] = vectors @ turn
    weights[-2, size - 2] = weights[-1, size - 1] = 1.0
    penalty = np.zeros((size, size))
    penalty[: size - 2, : size - 2] = turn.T @ vectors.T @ kernel @ vectors @ turn
    smooth = _Smooth(knots, float(values.mean()), weights, np.eye(size), penalty, 0.0, np.ones(1), np.ones(1))
    raw = np.column_stack([np.zeros(len(values)), smooth.columns(values)])
    raw[:, 0] = np.abs(values[:, None] - knots) ** 3 / 12 @ weights[: len(knots), 0]
    length = np.sqrt(np.mean(raw**2, axis=0))
    weights, penalty = weights / length, penalty / np.outer(length, length)
    reflection = _reflection((raw / length).sum(axis=0), 0, size)
    columns = (raw / length @ reflection)[:, 1:]
    penalty = (reflection @ penalty @ reflection)[1:, 1:]
    used = np.diag(penalty) > np.finfo(float).eps ** 0.8 * np.abs(penalty).max()
    squares, pulls = np.sum(columns**2, axis=0)[used], np.diag(penalty)[used]
    start = float(squares.mean() / pulls.mean())
    return replace(
        smooth,
        weights=weights,
        reflection=reflection,
        penalty=penalty,
        start=start,
        squares=squares,
        pulls=pulls,
    )


def _reflection(row: FloatArray, target: int, used: int) -> FloatArray:
    """Return the reflection that turns the first `used` entries of `row` onto the entry `target`."""
    normal = np.where(np.arange(len(row)) < used, row, 0.0)
    normal[target] += np.sign(normal[target]) * np.linalg.norm(normal)
    return np.asarray(np.eye(len(row)) - 2 * np.outer(normal, normal) / (normal @ normal))


def _common_start(smooths: list[_Smooth]) -> FloatArray:
    """Return mgcv's first penalties: each column is left about 0.4 of its freedom, by whole factors of ten."""
    squares = np.concatenate([smooth.squares for smooth in smooths])
    pulls = np.concatenate([smooth.start * smooth.pulls for smooth in smooths])
    power = 0
    while np.mean(squares / (squares + 10.0**power * pulls)) > 0.4:
        power += 1
    while np.mean(squares / (squares + 10.0**power * pulls)) < 0.4:
        power -= 1
    return np.log(np.array([smooth.start for smooth in smooths]) * 10.0**power)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = case_input()
    age = np.array(dataset.covariates["age"], dtype=np.float64)
    bend = 0.25 * np.sin((age - 40) / 45 * np.pi)
    bent = dataset.with_values(dataset.values + bend[:, None] * np.linspace(0, 2, dataset.values.shape[1]))
    plan = replace(PLAIN_SPECIFICATION, options={"smooths": {"age": {"basis_size": 8}}})

    def options(**own: str) -> dict[str, object]:
        return {**plan.options, **own}

    yield Input("gcv", bent, plan)
    yield Input("reml", bent, replace(plan, options=options(penalty="reml")))
    yield Input("gcv_least_score", bent, replace(plan, options=options(search="least")))
    yield Input("reml_least_score", bent, replace(plan, options=options(penalty="reml", search="least")))
    yield Input("without_eb", bent, replace(plan, eb=False))
    yield Input("nonparametric", bent, replace(plan, parametric=False))
    yield Input("mean_only", bent, replace(plan, mean_only=True))
    yield Input("reference_batch", bent, replace(plan, reference_batch="south"))
    only = (Covariate("age", "continuous"),)
    yield Input("age_alone", bent, replace(plan, covariates=only, options=options(penalty="reml")))
    decade = tuple((np.round(age / 10) * 10).tolist())
    few = replace(bent, covariates={**bent.covariates, "decade": decade})
    decades = (Covariate("decade", "continuous"), plan.covariates[1])
    size = {"smooths": {"decade": {"basis_size": len(set(decade))}}}
    yield Input("as_many_knots_as_columns", few, replace(plan, covariates=decades, options=size))
    weight = np.random.default_rng(23).normal(70, 9, len(age)).round(1)
    bent_twice = bent.with_values(
        dataset.values + 1.5 * bend[:, None] + 0.2 * ((weight - 70) / 9)[:, None] ** 2
    )
    two = replace(bent_twice, covariates={**bent.covariates, "weight": tuple(weight.tolist())})
    smooths = {"age": {"basis_size": 6}, "weight": {"basis_size": 5}}
    covariates = (*plan.covariates, Covariate("weight", "continuous"))
    yield Input("two_smooths", two, replace(plan, covariates=covariates, options={"smooths": smooths}))
    both = {"smooths": smooths, "penalty": "reml"}
    yield Input("two_smooths_reml", two, replace(plan, covariates=covariates, options=both))
    yield Input("apply_new_scans_beyond_the_data", bent, plan, new)
