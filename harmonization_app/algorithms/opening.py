"""What methods begin with and end in: parameters against their schema, the gate, their own checks; a model's frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import (
    Algorithm,
    Arrays,
    BoolArray,
    Dataset,
    Finding,
    require_no_stops,
    without_rows,
)
from harmonization_app.algorithms.design import Design, level_texts, merged_labels, select_features
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed, stops

Check = Callable[[Dataset, Specification], Iterable[Finding]]
# The modules that every method rests on: table, plan, design and gate.
SHARED_MODULES: tuple[str, ...] = (
    "harmonization_app.algorithms.affine",
    "harmonization_app.algorithms.base",
    "harmonization_app.algorithms.compiled",
    "harmonization_app.algorithms.correction_loops",
    "harmonization_app.algorithms.design",
    "harmonization_app.algorithms.kernel",
    "harmonization_app.algorithms.least_squares",
    "harmonization_app.algorithms.missing_cells",
    "harmonization_app.algorithms.model",
    "harmonization_app.algorithms.opening",
    "harmonization_app.algorithms.options",
    "harmonization_app.algorithms.specification",
    "harmonization_app.algorithms.statistics_loops",
    "harmonization_app.algorithms.table",
    "harmonization_app.algorithms.threads",
    "harmonization_app.diagnostics.gate",
    "harmonization_app.diagnostics.gate_assumptions",
    "harmonization_app.diagnostics.gate_balance",
    "harmonization_app.diagnostics.gate_batches",
    "harmonization_app.diagnostics.gate_counts",
    "harmonization_app.diagnostics.gate_covariates",
    "harmonization_app.diagnostics.gate_labels",
    "harmonization_app.diagnostics.gate_products",
    "harmonization_app.diagnostics.gate_residuals",
    "harmonization_app.diagnostics.gate_slopes",
    "harmonization_app.diagnostics.gate_summary",
    "harmonization_app.diagnostics.gate_values",
    "harmonization_app.diagnostics.subjects",
    "harmonization_app.diagnostics.wording",
)


def run_gate(
    algorithm: Algorithm,
    dataset: Dataset,
    specification: Specification,
    own: Check,
    common: Check | None = None,
) -> tuple[Finding, ...]:
    """Return the findings on parameters, then those of the `common` gate, then those of the method's `own` check.

    Each is left out while one before it stops. The common gate is the hub's, strict on missing values where the method
    takes none.
    """
    findings = check_parameters(algorithm.parameters_schema(), specification)
    if not findings:
        if common is None:
            common = gate.check if algorithm.capabilities.missing_values else gate.check_complete
        findings += common(dataset, specification)
    if not stops(findings):
        findings += own(dataset, specification)
    return tuple(findings)


def open_fit(
    algorithm: Algorithm, dataset: Dataset, specification: Specification
) -> tuple[Dataset, tuple[Finding, ...]]:
    """Return the planned features and the findings of `validate`. Raises HarmonizationRefused where it stops."""
    findings = algorithm.validate(dataset, specification)
    require_no_stops(findings)
    return select_features(dataset, specification.features), findings


def batch_sizes(dataset: Dataset, specification: Specification) -> dict[str, int]:
    """Return the scans of each batch after the plan's merges, in the order of labels."""
    return dict(sorted(Counter(str(label) for label in merged_labels(dataset, specification)).items()))


def base_facts(dataset: Dataset, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what every model tells of its data."""
    return table_facts(dataset, int(np.isnan(dataset.values).sum()), findings)


def table_facts(table: Labelled, missing_cells: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the same of a table whose missing cells were counted elsewhere."""
    return {
        "scans": len(table.rows),
        "features": len(table.features),
        "missing_cells": missing_cells,
        "findings": without_rows(findings),
    }


def new_model(
    algorithm: Algorithm,
    table: Labelled,
    specification: Specification,
    design: Design,
    *,
    arrays: Arrays,
    facts: Mapping[str, Any],
    flags: Mapping[str, tuple[str, ...]],
    iterations: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> Model:
    """Return the model of a fit of `table` by `design`."""
    return Model(
        algorithm=algorithm.id,
        version=algorithm.version,
        specification=specification,
        features=table.features,
        units=table.units,
        batches=design.batches,
        batch_sizes=tuple(int(size) for size in design.batch_sizes),
        coding=design.coding,
        arrays=arrays,
        iterations=iterations,
        flags=flags,
        facts=facts,
    )


def flagged(table: Labelled, marks: Mapping[str, BoolArray]) -> dict[str, tuple[str, ...]]:
    """Return the features marked by reason, `marks` [features] being those treated otherwise; no reason is empty."""
    return {
        reason: tuple(table.features[i] for i in np.flatnonzero(mask))
        for reason, mask in marks.items()
        if mask.any()
    }


def check_label_column(dataset: Dataset, name: str) -> list[Finding]:
    """Return a stop where the table lacks the column `name` or a row its label."""
    if name not in dataset.covariates:
        return [Finding("column_lacking", "stop", f"The table lacks {name}.", columns=(name,))]
    texts = level_texts(dataset.covariates[name])
    missing = tuple(row for row, text in zip(dataset.rows, texts, strict=True) if text is None)
    if not missing:
        return []
    message = f"{name} is missing or unreadable in {listed(missing)}."
    return [Finding("missing_column_value", "stop", message, rows=missing, columns=(name,))]
