"""Travelling subjects by one dense design of subjects and batches (Yamashita et al., PLoS Biol 17:e3000042 (2019))."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_text
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION
from harmonization_app.algorithms.verification.methods import Input

SCANNERS = "abcde"
TRAVELLERS = 9


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` less the effects that the travelling subjects of `fitted` show."""
    labels, subjects = plain_batches(fitted, specification), _subjects(fitted, specification)
    levels = sorted(set(labels))
    places = {
        subject: {label for s, label in zip(subjects, labels, strict=True) if s == subject}
        for subject in subjects
    }
    rows = [i for i, subject in enumerate(subjects) if len(places[subject]) > 1]
    travellers = sorted({subjects[i] for i in rows})
    origin = specification.reference_batch or levels[0]
    free = [level for level in levels if level != origin]
    design = np.array(
        [
            [float(subjects[i] == s) for s in travellers] + [float(labels[i] == level) for level in free]
            for i in rows
        ]
    )
    solution = np.linalg.lstsq(design, fitted.values[rows], rcond=None)[0][len(travellers) :]
    effects = dict(zip(free, solution, strict=True)) | {origin: np.zeros(fitted.values.shape[1])}
    if specification.reference_batch is None:
        middle = np.mean([effects[level] for level in levels], axis=0)
        effects = {level: effect - middle for level, effect in effects.items()}
    return scans.values - np.stack([effects[label] for label in plain_batches(scans, specification)])


def _subjects(dataset: Dataset, specification: Specification) -> list[str]:
    return [plain_text(value) for value in dataset.covariates[str(specification.subject)]]


def make_travelling(seed: int, noise: float = 0.1, features: int = 6) -> tuple[Dataset, FloatArray]:
    """Return scans of travelling subjects at all scanners and of others at one, and the planted effects.

    The others differ between scanners in their own level, which the effects must not follow.
    """
    random = np.random.default_rng(seed)
    effect = random.normal(0, 0.3, (len(SCANNERS), features))
    effect -= effect.mean(axis=0)
    people = [(f"T{i}", scanner) for i in range(TRAVELLERS) for scanner in range(len(SCANNERS))]
    people += [(f"P{i}", i % len(SCANNERS)) for i in range(60)]
    names, scanners = [name for name, _ in people], np.array([scanner for _, scanner in people])
    level = {name: 3 + random.normal(0, 0.2, features) for name in names}
    values = (
        np.stack([level[name] for name in names])
        + effect[scanners]
        + random.normal(0, noise, (len(names), features))
    )
    local = np.array([name.startswith("P") for name in names])
    values[local] += 0.5 * scanners[local, None]
    dataset = Dataset(
        values.round(5),
        tuple(f"region_{i:02d}" for i in range(features)),
        tuple(f"{name}/{SCANNERS[scanner]}" for name, scanner in people),
        tuple(SCANNERS[scanner] for scanner in scanners),
        {"subject": tuple(names)},
        ("mm",) * features,
    )
    return dataset, effect


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, _ = make_travelling(3)
    plan = replace(PLAIN_SPECIFICATION, covariates=(), eb=False, mean_only=True, subject="subject")
    yield Input("effects_add_up_to_zero", dataset, plan)
    yield Input("reference_batch", dataset, replace(plan, reference_batch="c"))
    yield Input("apply_new_scans", dataset, plan, make_travelling(4)[0])
