"""The gate before a harmonization: what stops it, what weakens it, each named by row, column and batch.

A stop refuses the run. Where the result would be wrong there is never only a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding
from harmonization_app.algorithms.design import (
    Design,
    as_numbers,
    build_design,
    level_texts,
    merged_labels,
    select_features,
)
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.algorithms.threads import beside
from harmonization_app.diagnostics.gate_assumptions import check_assumptions
from harmonization_app.diagnostics.gate_batches import check_batches
from harmonization_app.diagnostics.gate_counts import check_counts
from harmonization_app.diagnostics.gate_covariates import (
    check_covariate_values,
    check_design,
    check_observed_designs,
)
from harmonization_app.diagnostics.gate_labels import check_codes, check_label_spelling
from harmonization_app.diagnostics.gate_products import sample_features
from harmonization_app.diagnostics.gate_summary import Summary, find_cells, summarize, without_batches
from harmonization_app.diagnostics.gate_values import (
    check_features,
    check_values,
    infinite_cells,
    missing_cells,
)
from harmonization_app.diagnostics.wording import listed, stops


def check(dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
    """Return all findings on harmonizing `dataset` as `specification` says, stops first.

    Checks that need batches and covariates to be whole are left out while those are at fault.
    """
    findings = check_features(dataset, specification)
    if stops(findings):
        return tuple(findings)
    dataset = select_features(dataset, specification.features)
    findings += check_labels(dataset, specification)
    if stops(findings):
        findings += check_values(dataset, specification, without_batches(dataset.values), None)
    else:
        design = build_design(dataset, specification)
        with beside(lambda: summarize(dataset, design)) as summary:
            findings += check_summary(dataset, design, specification, summary, sample_features(dataset))
    return stops_first(findings)


def check_labels(table: Labelled, specification: Specification) -> list[Finding]:
    """Return the findings on batch labels and covariates."""
    return [
        *check_batches(table, specification),
        *check_covariate_values(table, specification),
        *check_label_spelling(table, specification),
    ]


def check_summary(
    table: Labelled,
    design: Design,
    specification: Specification,
    summarized: Callable[[], Summary],
    sample: Dataset,
) -> list[Finding]:
    """Return the findings on design and values of a table whose labels passed.

    `summarized` gives the summary of all its values, asked for once and late: it may still be made while the
    assumptions are judged, on the features of `sample`.
    """
    findings = [*check_counts(table, design, specification), *check_codes(table, specification)]
    findings += check_design(table, design, specification)
    assumptions = [] if stops(findings) else check_assumptions(sample, design, specification)
    summary = summarized()
    findings += check_values(table, specification, summary, design)
    if not stops(findings):
        findings += assumptions
    return findings + check_observed_designs(table, design, specification, summary.undetermined)


def stops_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings by severity, else in their order."""
    rank = {"stop": 0, "warn": 1, "info": 2}
    return tuple(sorted(findings, key=lambda finding: rank[finding.severity]))


def check_complete(dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return the findings for a method that takes no missing values."""
    return list(check(dataset, replace(specification, missing_values="refuse")))


def check_apply(model: Model, dataset: Dataset, *, missing_values: bool = True) -> tuple[Finding, ...]:
    """Return all findings on correcting `dataset` by a fitted model: known batches, covariates complete.

    Without `missing_values` an empty cell stops as well.
    """
    findings: list[Finding] = []
    if dataset.units != model.units:
        differing = tuple(
            name
            for name, own, learnt in zip(model.features, dataset.units, model.units, strict=True)
            if own != learnt
        )
        message = (
            f"The units differ from those the model was fitted on: {listed(differing)}. Convert them first."
        )
        findings.append(Finding("units_differ", "stop", message, columns=differing))
    findings += _apply_batches(model, dataset)
    findings += _apply_covariates(model, dataset)
    cells = find_cells(dataset)
    findings += infinite_cells(dataset, cells)
    if not missing_values:
        findings += missing_cells(dataset, cells, refused=True)
    return tuple(findings)


def _apply_batches(model: Model, dataset: Dataset) -> list[Finding]:
    labels = merged_labels(dataset, model.specification)
    known = set(model.batches)
    findings = []
    missing = tuple(row for row, label in zip(dataset.rows, labels, strict=True) if label is None)
    if missing:
        findings.append(
            Finding(
                "missing_batch", "stop", f"The batch label is missing in {listed(missing)}.", rows=missing
            )
        )
    unknown = tuple(sorted({label for label in labels if label is not None} - known))
    if unknown:
        rows = tuple(row for row, label in zip(dataset.rows, labels, strict=True) if label in unknown)
        message = (
            f"The model knows no batch {listed(unknown)}; fit a new version of the model that includes it."
        )
        findings.append(Finding("unknown_batch", "stop", message, rows=rows, batches=unknown))
    return findings


def _apply_covariates(model: Model, dataset: Dataset) -> list[Finding]:
    findings: list[Finding] = []
    for name in (*model.coding.ranges, *model.coding.levels):
        if name not in dataset.covariates:
            message = f"The covariate {name} is lacking; the model needs it for every scan."
            findings.append(Finding("covariate_lacking", "stop", message, columns=(name,)))
        elif name in model.coding.ranges:
            findings += _apply_continuous(model, dataset, name)
        else:
            findings += _apply_categorical(model, dataset, name)
    return findings


def _apply_continuous(model: Model, dataset: Dataset, name: str) -> list[Finding]:
    values = as_numbers(dataset.covariates[name])
    rows = np.array(dataset.rows, dtype=object)
    findings = []
    missing = tuple(rows[np.isnan(values)])
    if missing:
        message = f"{name} is missing or not a number in {listed(missing)}."
        findings.append(Finding("missing_covariate", "stop", message, rows=missing, columns=(name,)))
    least, greatest = model.coding.ranges[name]
    outside = tuple(rows[(values < least) | (values > greatest)])
    if outside:
        message = (
            f"{name} lies outside the range the model was fitted on ({least:g} to {greatest:g}) in "
            f"{listed(outside)}; "
            "its effect is extrapolated there."
        )
        findings.append(Finding("covariate_out_of_range", "warn", message, rows=outside, columns=(name,)))
    return findings


def _apply_categorical(model: Model, dataset: Dataset, name: str) -> list[Finding]:
    texts = level_texts(dataset.covariates[name])
    findings = []
    missing = tuple(row for row, text in zip(dataset.rows, texts, strict=True) if text is None)
    if missing:
        message = f"{name} is missing in {listed(missing)}."
        findings.append(Finding("missing_covariate", "stop", message, rows=missing, columns=(name,)))
    known = set(model.coding.levels[name])
    unknown = tuple(
        row for row, text in zip(dataset.rows, texts, strict=True) if text is not None and text not in known
    )
    if unknown:
        message = (
            f"{name} has a level the model does not know in {listed(unknown)}; it knows "
            f"{listed(tuple(sorted(known)))}."
        )
        findings.append(Finding("unknown_level", "stop", message, rows=unknown, columns=(name,)))
    return findings
