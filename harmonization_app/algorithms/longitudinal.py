"""Subjects, time and interactions of repeated scans as the design of a mixed model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.design import Design, as_numbers, build_design, level_texts
from harmonization_app.algorithms.opening import check_label_column
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.gate_covariates import check_rank
from harmonization_app.diagnostics.wording import listed


@dataclass(frozen=True, slots=True, eq=False)
class LongitudinalDesign:
    """Fixed effects [scans x columns] with their names, where the batches stand in them, subjects and time."""

    fixed: FloatArray
    names: tuple[str, ...]
    batch_columns: slice
    subjects: IntArray
    time: FloatArray


def longitudinal_design(
    dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
) -> LongitudinalDesign:
    """Return intercept, batches (against the first), covariates and interactions, as `check_longitudinal` let in.

    `design` holds the scans' batches and covariates, coded as they were when the model was fitted.
    """
    effects, names = _effects(design, options)
    batches = np.eye(len(design.batches))[design.codes][:, 1:]
    labels = level_texts(dataset.covariates[str(specification.subject)])
    time = np.zeros(len(dataset.rows))
    if options["random_slope"]:
        time = as_numbers(dataset.covariates[str(specification.time)])
    return LongitudinalDesign(
        fixed=np.hstack([np.ones((len(dataset.rows), 1)), batches, effects]),
        names=("intercept", *(f"batch[{batch}]" for batch in design.batches[1:]), *names),
        batch_columns=slice(1, len(design.batches)),
        subjects=np.unique(np.array(labels, dtype=str), return_inverse=True)[1].astype(np.int64),
        time=time,
    )


def check_longitudinal(
    dataset: Dataset, specification: Specification, options: Mapping[str, Any]
) -> list[Finding]:
    """Return the findings on subjects, time and interactions of a dataset that passed the common gate."""
    findings = check_columns(dataset, specification, options)
    if findings:
        return findings
    design = build_design(dataset, specification)
    effects, names = _effects(design, options)
    if names:
        expanded = type(design)(design.batches, design.codes, effects, design.coding)
        findings += [item for item in check_rank(expanded, names) if item.severity == "stop"]
    labels = np.array(level_texts(dataset.covariates[str(specification.subject)]), dtype=str)
    subjects, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.max() < 2:
        message = "No subject has two scans: a random effect of the subject cannot be estimated. Plan combat."
        return [
            *findings,
            Finding("no_repeated_scans", "stop", message, columns=(str(specification.subject),)),
        ]
    if len(subjects) < 2:
        message = "All scans are of one subject; the batches' effects cannot be told from its own."
        return [*findings, Finding("one_subject", "stop", message)]
    return findings + _unconnected(design.batches, design.codes, codes)


def batch_components(batches: int, batch_of: IntArray, subject_of: IntArray) -> IntArray:
    """Return for each batch the least batch it is connected with by subjects scanned in both [batches]."""
    component = np.arange(batches)
    for subject in np.unique(subject_of):
        own = np.unique(component[batch_of[subject_of == subject]])
        component[np.isin(component, own)] = own[0]
    return component


def _unconnected(batches: tuple[str, ...], batch_of: IntArray, subject_of: IntArray) -> list[Finding]:
    component = batch_components(len(batches), batch_of, subject_of)
    sizes = np.bincount(component, minlength=len(batches))
    alone = tuple(batches[i] for i in np.flatnonzero(component != np.argmax(sizes)))
    if not alone:
        return []
    message = (
        f"These batches share no subject with the others, directly or through a third: {listed(alone)}. Their "
        "effect rests on the covariates alone."
    )
    return [Finding("batches_not_connected", "warn", message, batches=alone)]


def _effects(design: Design, options: Mapping[str, Any]) -> tuple[FloatArray, tuple[str, ...]]:
    """Return covariate columns and the products of interacting ones, with their names."""
    columns, names = [design.covariates], list(design.coding.column_names)
    origin = [name for name, _ in design.coding.columns]
    for first, second in options["interactions"]:
        for left in (i for i, name in enumerate(origin) if name == first):
            for right in (i for i, name in enumerate(origin) if name == second):
                columns.append(design.covariates[:, [left]] * design.covariates[:, [right]])
                names.append(f"{design.coding.column_names[left]}:{design.coding.column_names[right]}")
    return np.hstack(columns), tuple(names)


def check_columns(
    dataset: Dataset, specification: Specification, options: Mapping[str, Any]
) -> list[Finding]:
    """Return the findings on the columns of subject and time, and on the names of interactions."""
    subject = str(specification.subject)
    needed = [subject, *([specification.time] if options["random_slope"] else [])]
    if None in needed:
        return [Finding("time_lacking", "stop", "A random slope needs the plan's column of time.")]
    lacking = tuple(str(name) for name in needed if name not in dataset.covariates)
    if lacking:
        return [Finding("column_lacking", "stop", f"The table lacks {listed(lacking)}.", columns=lacking)]
    known = {covariate.name for covariate in specification.covariates}
    strange = tuple(name for pair in options["interactions"] for name in pair if name not in known)
    if strange:
        message = f"The interactions name {listed(strange)}, which the plan does not name as covariates."
        return [Finding("interaction_unknown", "stop", message, columns=strange)]
    findings = check_label_column(dataset, subject)
    if findings or not options["random_slope"]:
        return findings
    time = str(specification.time)
    missing = np.isnan(as_numbers(dataset.covariates[time]))
    rows = tuple(row for row, absent in zip(dataset.rows, missing, strict=True) if absent)
    if not rows:
        return []
    message = f"{time} is missing or unreadable in {listed(rows)}."
    return [Finding("missing_column_value", "stop", message, rows=rows, columns=(time,))]
