"""Longitudinal ComBat feature by feature and subject by subject (Beer et al., NeuroImage 220:117129 (2020)).

The restricted likelihood is written with each subject's own covariance matrix (Lindstrom and Bates, JASA 83:1014
(1988), equation 3.4) and maximized over logarithms of variance ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates, plain_text
from harmonization_app.algorithms.verification.inputs import NO_OVERLAP_LIMIT, SMALL_BATCHES
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.pooled import Correction, pool_columns

# Above this many cells the search for variance ratios is repeated for a seeded sample of features.
SEARCHED_CELLS = 200_000
LARGEST_CELLS = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Subjects with equally many scans: rows [subjects x scans], fixed design and random-effects design of each."""

    rows: IntArray
    design: FloatArray
    random: FloatArray

    def whole(self, covariance: FloatArray) -> FloatArray:
        """Return each subject's covariance matrix over the residual variance [subjects x scans x scans]."""
        return np.eye(self.rows.shape[1]) + self.random @ covariance @ self.random.transpose(0, 2, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Feature:
    """One fitted feature: fixed effects about `level`, relative covariance of the random effects, residual SD."""

    level: float
    coefficients: FloatArray
    covariance: FloatArray
    sigma: float


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` harmonized by what is learnt on `fitted`; their subjects' random effects come from `scans`."""
    return _compute(fitted, specification, scans, {})


def against(fitted: Dataset, model: Model, scans: Dataset) -> Correction:
    """Return `scans` harmonized by what is learnt on `fitted`.

    For features outside the sample of a large table the variance ratios are the model's own; everything else is
    computed anew. Raises ValueError beyond `LARGEST_CELLS`.
    """
    cells, features = fitted.values.size, fitted.values.shape[1]
    if cells > LARGEST_CELLS:
        raise ValueError(f"a mixed model of each feature takes too long above {LARGEST_CELLS:,} cells")
    if cells <= SEARCHED_CELLS:
        return Correction(_compute(fitted, model.specification, scans, {}))
    usable = model.arrays["usable"].tolist()
    sample = max(1, features * SEARCHED_CELLS // cells)
    searched = set(np.random.default_rng(model.specification.seed).permutation(usable)[:sample].tolist())
    given = {
        feature: _covariance(factor)
        for feature, factor in zip(usable, model.arrays["relative_factor"], strict=True)
        if feature not in searched
    }
    values = _compute(fitted, model.specification, scans, given)
    scope = (
        f"The search for the random effects' variance was repeated for {len(searched)} of {len(usable)} features, "
        f"drawn with seed {model.specification.seed}; for the others it was taken as found, all else computed again."
    )
    return Correction(values, scope=scope)


def _covariance(factor: FloatArray) -> FloatArray:
    if len(factor) == 1:
        return np.array([[factor[0] ** 2]])
    lower = np.array([[factor[0], 0.0], [factor[1], factor[2]]])
    return np.asarray(lower @ lower.T)


def _compute(
    fitted: Dataset, specification: Specification, scans: Dataset, given: Mapping[int, FloatArray]
) -> FloatArray:
    """Return corrected `scans`; `given` are relative covariances by feature that are not to be searched."""
    labels, others = (np.array(plain_batches(table, specification)) for table in (fitted, scans))
    levels = sorted(set(labels.tolist()))
    design, groups = _design(fitted, specification, fitted, levels)
    own_design, own_groups = _design(scans, specification, fitted, levels)
    varying = [i for i, column in enumerate(fitted.values.T) if column.min() < column.max()]
    standard, bases, sigmas = {}, {}, {}
    for feature in varying:
        values = fitted.values[:, feature]
        fit = _mixed_model(values, design, groups, given.get(feature))
        predicted = _predicted(values, fit, design, groups)
        sigma = fit.sigma
        if specification.options.get("residual_scale") == "MSR":
            sigma = math.sqrt(float(np.mean((values - predicted) ** 2)))
        effects = dict(zip(levels, [0.0, *fit.coefficients[1 : len(levels)]], strict=True))
        middle = float(np.mean([effects[label] for label in labels]))
        own = np.array([effects[label] - middle for label in others])
        standard[feature] = (values - predicted + [effects[label] - middle for label in labels]) / sigma
        bases[feature] = _predicted(scans.values[:, feature], fit, own_design, own_groups) - own
        sigmas[feature] = sigma
    corrected = scans.values.copy()
    for columns in pool_columns(fitted, specification).values():
        pool = [column for column in columns.tolist() if column in standard]
        for level in levels:
            learnt = np.column_stack([standard[column][labels == level] for column in pool])
            alike = np.array([len(set(fitted.values[labels == level, column])) == 1 for column in pool])
            shift, scale = _empirical_bayes(learnt, alike, specification.options.get("steps", 30))
            for column, g, d in zip(pool, shift.tolist(), scale.tolist(), strict=True):
                rows, base, sigma = others == level, bases[column], sigmas[column]
                residual = (scans.values[rows, column] - base[rows]) / sigma
                corrected[rows, column] = sigma * (residual - g) / math.sqrt(d) + base[rows]
    return corrected


def _design(
    dataset: Dataset, specification: Specification, fitted: Dataset, levels: list[str]
) -> tuple[FloatArray, list[_Group]]:
    labels = plain_batches(dataset, specification)
    covariates = {item.name: plain_covariates(dataset, replace(specification, covariates=(item,)), fitted)
                  for item in specification.covariates}  # fmt: skip
    columns = [np.ones(len(labels))]
    columns += [np.array([float(label == level) for label in labels]) for level in levels[1:]]
    columns += [block[:, i] for block in covariates.values() for i in range(block.shape[1])]
    for first, second in specification.options.get("interactions", []):
        for left in covariates[first].T:
            columns += [left * right for right in covariates[second].T]
    design = np.column_stack(columns)
    random = np.ones((len(labels), 1))
    if specification.options.get("random_slope"):
        time = [float(value) for value in dataset.covariates[str(specification.time)]]  # type: ignore[arg-type]
        random = np.column_stack([random, time])
    by_subject: dict[str, list[int]] = {}
    for row, value in enumerate(dataset.covariates[str(specification.subject)]):
        by_subject.setdefault(plain_text(value), []).append(row)
    groups = []
    for size in sorted({len(rows) for rows in by_subject.values()}):
        rows = np.array([own for own in by_subject.values() if len(own) == size])
        groups.append(_Group(rows, design[rows], random[rows]))
    return design, groups


def _mixed_model(
    values: FloatArray, design: FloatArray, groups: list[_Group], covariance: FloatArray | None
) -> _Feature:
    """Return the restricted maximum likelihood fit; with a `covariance` given, only what follows from it."""
    level = float(values.mean())
    centred = values - level
    degrees = len(values) - design.shape[1]

    def criterion(covariance: FloatArray) -> tuple[float, FloatArray, float]:
        gram = np.zeros((design.shape[1], design.shape[1]))
        right, square, logarithm = np.zeros(design.shape[1]), 0.0, 0.0
        for group in groups:
            whole, own = group.whole(covariance), centred[group.rows]
            solved = np.linalg.solve(whole, np.concatenate([group.design, own[:, :, None]], axis=2))
            gram = gram + np.tensordot(group.design, solved[:, :, :-1], axes=([0, 1], [0, 1]))
            right = right + np.tensordot(group.design, solved[:, :, -1], axes=([0, 1], [0, 1]))
            square += float(np.sum(own * solved[:, :, -1]))
            logarithm += float(np.linalg.slogdet(whole)[1].sum())
        coefficients = np.linalg.solve(gram, right)
        residual = square - float(coefficients @ right)
        total = logarithm + float(np.linalg.slogdet(gram)[1]) + degrees * math.log(residual)
        return float(total), np.asarray(coefficients), math.sqrt(residual / degrees)

    if covariance is None:
        covariance = _best_covariance(lambda guess: criterion(guess)[0], groups[0].random.shape[2])
    _, coefficients, sigma = criterion(covariance)
    return _Feature(level, coefficients, covariance, sigma)


def _predicted(values: FloatArray, fit: _Feature, design: FloatArray, groups: list[_Group]) -> FloatArray:
    """Return fixed effects and predicted random effects of the scans of `groups`."""
    predicted = design @ fit.coefficients + fit.level
    residual = values - predicted
    for group in groups:
        solved = np.linalg.solve(group.whole(fit.covariance), residual[group.rows][:, :, None])
        effects = group.random @ fit.covariance @ group.random.transpose(0, 2, 1) @ solved
        predicted[group.rows] += effects[:, :, 0]
    return np.asarray(predicted)


def _best_covariance(criterion: Callable[[FloatArray], float], effects: int) -> FloatArray:
    """Return the relative covariance of the random effects with the least criterion."""
    if effects == 1:
        found = optimize.minimize_scalar(
            lambda guess: criterion(np.array([[math.exp(guess)]])),
            bounds=(-20, 20),
            method="bounded",
            options={"xatol": 1e-9},
        )
        covariance = np.array([[math.exp(found.x)]])
        zero = np.zeros((1, 1))
        return zero if criterion(zero) <= criterion(covariance) else covariance

    def build(guess: FloatArray) -> FloatArray:
        lower = np.array([[guess[0], 0.0], [guess[1], guess[2]]])
        return lower @ lower.T

    options: dict[str, Any] = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000}
    starts = ([1.0, 0.0, 0.3], [2.0, 0.1, 0.02])
    attempts = [
        optimize.minimize(lambda guess: criterion(build(guess)), start, method="Nelder-Mead", options=options)
        for start in starts
    ]
    best = min(attempts, key=lambda attempt: float(attempt.fun))
    return build(best.x)


def _empirical_bayes(
    values: FloatArray, alike: npt.NDArray[np.bool_], steps: int
) -> tuple[FloatArray, FloatArray]:
    """Return shrunken shift and scale of the values of one batch and pool [scans x features].

    The scale of features whose measurements are `alike` stays 1.
    """
    count = len(values)
    shift, scale = values.mean(axis=0), np.where(alike, 1.0, values.var(axis=0, ddof=1))
    mean, variance = shift.mean(), shift.var(ddof=1)
    centre, spread = scale.mean(), scale.var(ddof=1)
    shape, rate = (centre**2 + 2 * spread) / spread, (centre**3 + centre * spread) / spread
    new_shift, new_scale = shift.copy(), scale.copy()
    for _ in range(steps):
        new_shift = (count * variance * shift + new_scale * mean) / (count * variance + new_scale)
        new_scale = (rate + 0.5 * ((values - new_shift) ** 2).sum(axis=0)) / (count / 2 + shape - 1)
    return new_shift, np.where(alike, 1.0, new_scale)


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset = make_longitudinal(18, seed=11)
    plan = Specification(
        covariates=(
            Covariate("age", "continuous"),
            Covariate("group", "categorical", reference="control"),
            Covariate("years", "continuous"),
        ),
        batch_size=SMALL_BATCHES,
        overlap=NO_OVERLAP_LIMIT,
        subject="subject",
        time="years",
        options={"interactions": [["group", "years"]]},
    )
    yield Input("random_intercept", dataset, plan)
    yield Input("mean_squared_residual", dataset, replace(plan, options={"residual_scale": "MSR"}))
    slope = {"random_slope": True, "interactions": [["group", "years"]]}
    yield Input("random_slope", dataset, replace(plan, options=slope))
    yield Input("apply_new_scans", dataset, plan, make_longitudinal(7, seed=12))


def make_longitudinal(subjects: int, seed: int, features: int = 8) -> Dataset:
    """Return repeated scans with planted subject levels and slopes, group decline and scanner effects.

    Every subject has four visits a year apart; about a third changes the scanner on the way.
    """
    random = np.random.default_rng(seed)
    visits = 4
    subject = np.repeat(np.arange(subjects), visits)
    years = np.tile(np.arange(visits), subjects) + random.uniform(-0.1, 0.1, subjects * visits)
    first, second = random.integers(0, 3, subjects), random.integers(0, 3, subjects)
    scanner = np.where(np.tile(np.arange(visits), subjects) < 2, first[subject], second[subject])
    age, group = random.uniform(55, 80, subjects), random.integers(0, 2, subjects)
    level = random.uniform(2, 3, features) + random.normal(0, 0.15, (subjects, features))
    slope = random.normal(0, 0.04, (subjects, features)) - 0.03 * group[:, None]
    values = level[subject] - 0.006 * (age[subject, None] - 65) + slope[subject] * years[:, None]
    noise = random.normal(0, 0.05, values.shape) * random.uniform(0.7, 1.5, (3, features))[scanner]
    values += random.normal(0, 0.1, (3, features))[scanner] + noise
    return Dataset(
        values.round(4),
        tuple(f"region_{i:02d}" for i in range(features)),
        tuple(f"P{s:03d}/{v}" for s in range(subjects) for v in range(visits)),
        tuple("abc"[i] for i in scanner),
        {
            "subject": tuple(f"P{s:03d}" for s in subject),
            "years": tuple(years.round(3).tolist()),
            "age": tuple(age[subject].round(1).tolist()),
            "group": tuple(("control", "patient")[group[s]] for s in subject),
        },
        ("mm",) * features,
    )
