"""What methods begin with: parameters against their schema, the common gate, their own checks; the opening of a fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Dataset, Finding, require_no_stops, without_rows
from harmonization_app.algorithms.design import level_texts, merged_labels, select_features
from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed, stops

Check = Callable[[Dataset, Specification], Iterable[Finding]]


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
    return {
        "scans": len(dataset.rows),
        "features": len(dataset.features),
        "missing_cells": int(np.isnan(dataset.values).sum()),
        "findings": without_rows(findings),
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
