"""Longitudinal ComBat feature by feature and subject by subject (Beer et al., NeuroImage 220:117129 (2020)).

The restricted likelihood is written with each subject's own covariance matrix (Lindstrom and Bates, JASA 83:1014
(1988), equation 3.4) and maximized over logarithms of variance ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates, plain_text
from harmonization_app.algorithms.verification.inputs import NO_OVERLAP_LIMIT, SMALL_BATCHES
from harmonization_app.algorithms.verification.methods import Input

LARGEST_CELLS = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    rows: IntArray
    design: FloatArray
    random: FloatArray


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return the harmonized values of `scans`, which must be the fitted ones."""
    if scans is not fitted or specification.pools:
        raise ValueError("it corrects the fitted scans only, in one pool")
    if fitted.values.size > LARGEST_CELLS:
        raise ValueError(f"it takes at most {LARGEST_CELLS} cells")
    labels = plain_batches(fitted, specification)
    levels = sorted(set(labels))
    design, subjects = _design(fitted, specification, labels, levels)
    names = np.array(labels)
    standard, back = np.empty_like(fitted.values), []
    for feature in range(fitted.values.shape[1]):
        values = fitted.values[:, feature]
        coefficients, predicted, sigma = _mixed_model(values, design, subjects)
        if specification.options.get("residual_scale") == "MSR":
            sigma = math.sqrt(float(np.mean((values - predicted) ** 2)))
        effects = dict(zip(levels, [0.0, *coefficients[1 : len(levels)]], strict=True))
        middle = float(np.mean([effects[label] for label in labels]))
        offset = np.array([effects[label] - middle for label in labels])
        standard[:, feature] = (values - predicted + offset) / sigma
        back.append((sigma, predicted - offset))
    adjusted = np.empty_like(standard)
    for level in levels:
        own = names == level
        adjusted[own] = _empirical_bayes(standard[own], specification.options.get("steps", 30))
    return np.column_stack([adjusted[:, i] * sigma + base for i, (sigma, base) in enumerate(back)])


def _design(
    dataset: Dataset, specification: Specification, labels: list[str], levels: list[str]
) -> tuple[FloatArray, list[_Subject]]:
    covariates = {item.name: plain_covariates(dataset, replace(specification, covariates=(item,)))
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
    keys = np.array([plain_text(value) for value in dataset.covariates[str(specification.subject)]])
    subjects = []
    for key in sorted(set(keys.tolist())):
        rows = np.flatnonzero(keys == key)
        subjects.append(_Subject(rows, design[rows], random[rows]))
    return design, subjects


def _mixed_model(
    values: FloatArray, design: FloatArray, subjects: list[_Subject]
) -> tuple[FloatArray, FloatArray, float]:
    """Return fixed effects, fitted values with random effects, residual SD."""
    level = float(values.mean())
    centred = values - level
    degrees = len(values) - design.shape[1]

    def criterion(covariance: FloatArray) -> tuple[float, FloatArray, float]:
        gram = np.zeros((design.shape[1], design.shape[1]))
        right, square, logarithm = np.zeros(design.shape[1]), 0.0, 0.0
        for subject in subjects:
            whole = np.eye(len(subject.rows)) + subject.random @ covariance @ subject.random.T
            solved = np.linalg.solve(whole, np.column_stack([subject.design, centred[subject.rows]]))
            gram = gram + subject.design.T @ solved[:, :-1]
            right = right + subject.design.T @ solved[:, -1]
            square += float(centred[subject.rows] @ solved[:, -1])
            logarithm += float(np.linalg.slogdet(whole)[1])
        coefficients = np.linalg.solve(gram, right)
        residual = square - float(coefficients @ right)
        total = logarithm + float(np.linalg.slogdet(gram)[1]) + degrees * math.log(residual)
        return float(total), np.asarray(coefficients), math.sqrt(residual / degrees)

    covariance = _best_covariance(lambda guess: criterion(guess)[0], subjects[0].random.shape[1])
    _, coefficients, sigma = criterion(covariance)
    predicted = design @ coefficients
    for subject in subjects:
        whole = np.eye(len(subject.rows)) + subject.random @ covariance @ subject.random.T
        residual = centred[subject.rows] - subject.design @ coefficients
        predicted[subject.rows] += (
            subject.random @ covariance @ subject.random.T @ np.linalg.solve(whole, residual)
        )
    return coefficients, predicted + level, sigma


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


def _empirical_bayes(values: FloatArray, steps: int) -> FloatArray:
    """Return the values of one batch [scans x features] with shrunken shift and scale taken out."""
    count = len(values)
    shift, scale = values.mean(axis=0), values.var(axis=0, ddof=1)
    mean, variance = shift.mean(), shift.var(ddof=1)
    centre, spread = scale.mean(), scale.var(ddof=1)
    shape, rate = (centre**2 + 2 * spread) / spread, (centre**3 + centre * spread) / spread
    new_shift, new_scale = shift.copy(), scale.copy()
    for _ in range(steps):
        new_shift = (count * variance * shift + new_scale * mean) / (count * variance + new_scale)
        new_scale = (rate + 0.5 * ((values - new_shift) ** 2).sum(axis=0)) / (count / 2 + shape - 1)
    return np.asarray((values - new_shift) / np.sqrt(new_scale))


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
