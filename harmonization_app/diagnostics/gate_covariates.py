"""Checks of covariates and of the design they form with the batches: missing, levels, rank, condition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import Finding, FloatArray, IntArray, Severity
from harmonization_app.algorithms.design import Design, as_numbers, level_texts
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.diagnostics.gate_balance import check_balance
from harmonization_app.diagnostics.wording import listed

# A column that its predecessors explain to this part of its own length is one of them again, up to rounding.
DEPENDENCE_RATIO = 1e-7
INVOLVED_RATIO = 1e-6
HIGH_VIF = 10.0
FEW_RESIDUAL_DEGREES = 10


def check_covariate_values(dataset: Labelled, specification: Specification) -> list[Finding]:
    """Return the findings on each covariate by itself."""
    names = [covariate.name for covariate in specification.covariates]
    findings = []
    if len(set(names)) < len(names):
        findings.append(
            Finding(
                "duplicate_covariate",
                "stop",
                "The plan names a covariate twice. Keep one of each.",
                columns=tuple(sorted({name for name in names if names.count(name) > 1})),
            )
        )
    for covariate in specification.covariates:
        if covariate.name not in dataset.covariates:
            message = (
                f"The table lacks the covariate {covariate.name}; it has "
                f"{listed(sorted(dataset.covariates)) or 'none'}."
            )
            findings.append(Finding("covariate_lacking", "stop", message, columns=(covariate.name,)))
        elif covariate.kind == "continuous":
            findings += _continuous(dataset, covariate.name)
        else:
            findings += _categorical(dataset, covariate)
    return findings


def check_design(dataset: Labelled, design: Design, specification: Specification) -> list[Finding]:
    """Return the findings on the design: rank with the confounded columns named, condition, VIF, overlap."""
    columns = len(design.batches) + design.covariates.shape[1]
    degrees = len(dataset.rows) - columns
    findings: list[Finding] = []
    if degrees < 1:
        message = (
            f"{len(dataset.rows)} scans cannot determine {columns} effects ({len(design.batches)} "
            "batches and "
            f"{design.covariates.shape[1]} covariate columns). Drop covariates or merge batches."
        )
        return [Finding("more_effects_than_scans", "stop", message, columns=design.coding.column_names)]
    if degrees < FEW_RESIDUAL_DEGREES:
        message = (
            f"Only {degrees} residual degrees of freedom remain after {columns} effects; the estimates will hang on "
            "single scans. Drop covariates or merge batches."
        )
        findings.append(Finding("few_residual_degrees", "warn", message))
    if not design.covariates.shape[1]:
        return findings
    singular = _singular_values(design)
    confounded = _confounded(design, singular)
    if confounded:
        return findings + confounded
    return findings + _conditioning(design, singular, specification) + check_balance(design, specification)


def check_rank(design: Design, names: tuple[str, ...], maximum_condition: float = 1000.0) -> list[Finding]:
    """Return the findings on rank and condition of a design whose columns were derived, called `names`."""
    coding = CovariateCoding(tuple((name, None) for name in names), {}, {})
    derived = Design(design.batches, design.codes, design.covariates, coding)
    degrees = len(design.codes) - len(design.batches) - len(names)
    if degrees < 1:
        message = f"{len(design.codes)} scans cannot determine {len(design.batches)} batches and {len(names)} columns."
        return [Finding("more_effects_than_scans", "stop", message, columns=names)]
    limit = Specification(maximum_condition=maximum_condition)
    singular = _singular_values(derived)
    return _confounded(derived, singular) or _conditioning(derived, singular, limit)


def undetermined_columns(values: FloatArray, design: Design, doubtful: IntArray) -> IntArray:
    """Return the columns, of those `doubtful`, whose observed scans do not determine the covariates."""
    if not doubtful.size or not design.covariates.shape[1]:
        return np.empty(0, dtype=np.int64)
    determined: dict[bytes, bool] = {}
    at_fault = []
    for column in doubtful.tolist():
        seen = ~np.isnan(values[:, column])
        pattern = np.packbits(seen).tobytes()
        if pattern not in determined:
            determined[pattern] = _determined(design, seen)
        if not determined[pattern]:
            at_fault.append(column)
    return np.array(at_fault, dtype=np.int64)


def check_observed_designs(
    table: Labelled, design: Design, specification: Specification, undetermined: IntArray
) -> list[Finding]:
    """Return the features whose observed scans do not determine the covariates, of the columns `undetermined`."""
    if not undetermined.size:
        return []
    at_fault = [table.features[column] for column in undetermined]
    passing = specification.unusable_features == "pass_through"
    message = (
        f"The observed scans of {listed(at_fault)} do not determine the effects of "
        f"{listed(design.coding.column_names)}. "
        + ("They are passed through unharmonized." if passing else "Leave the features out of the plan.")
    )
    severity: Severity = "warn" if passing else "stop"
    return [Finding("feature_not_estimable", severity, message, columns=tuple(at_fault))]


def _determined(design: Design, seen: npt.NDArray[np.bool_]) -> bool:
    if not seen.any():
        return False
    covariates = _scaled_covariates(design)[seen]
    own = np.unique(design.codes[seen], return_inverse=True)[1]
    indicators = np.eye(int(own.max()) + 1)[own]
    within = covariates - indicators @ (indicators.T @ covariates / indicators.sum(axis=0)[:, None])
    tolerance = DEPENDENCE_RATIO * np.sqrt(len(own))
    return bool(np.linalg.matrix_rank(within, tol=tolerance) == within.shape[1])


def _continuous(dataset: Labelled, name: str) -> list[Finding]:
    values = as_numbers(dataset.covariates[name])
    rows = np.array(dataset.rows, dtype=object)
    missing = tuple(rows[np.isnan(values)])
    if missing:
        message = (
            f"{name} is missing, infinite or not a number in {len(missing)} row(s): {listed(missing)}. Complete it, or "
            "exclude the rows in the plan."
        )
        return [Finding("missing_covariate", "stop", message, rows=missing, columns=(name,))]
    if values.size and values.min() == values.max():
        message = f"{name} has one value in all scans; it has no effect to preserve. Take it out of the plan."
        return [Finding("constant_covariate", "stop", message, columns=(name,))]
    return []


def _categorical(dataset: Labelled, covariate: Covariate) -> list[Finding]:
    name = covariate.name
    texts = level_texts(dataset.covariates[name])
    missing = tuple(row for row, text in zip(dataset.rows, texts, strict=True) if text is None)
    if missing:
        message = (
            f"{name} is missing in {len(missing)} row(s): {listed(missing)}. Complete it, or exclude them."
        )
        return [Finding("missing_covariate", "stop", message, rows=missing, columns=(name,))]
    seen = {text for text in texts if text is not None}
    unknown = sorted(seen - set(covariate.levels)) if covariate.levels else []
    if unknown:
        rows = tuple(row for row, text in zip(dataset.rows, texts, strict=True) if text in unknown)
        message = (
            f"{name} has levels the plan does not know ({listed(unknown)}) in row(s) {listed(rows)}. Correct them, or "
            "name them in the plan."
        )
        return [Finding("unknown_level", "stop", message, rows=rows, columns=(name,))]
    if covariate.reference is not None and covariate.reference not in seen:
        message = (
            f"The reference level {covariate.reference} of {name} is not in the data; it has "
            f"{listed(sorted(seen))}. Plan one of these."
        )
        return [Finding("unknown_level", "stop", message, columns=(name,))]
    if len(seen) < 2:
        message = f"{name} has one level in all scans; it has no effect to preserve. Take it out of the plan."
        return [Finding("constant_covariate", "stop", message, columns=(name,))]
    return []


def _indicators(design: Design) -> FloatArray:
    return np.eye(len(design.batches))[design.codes]


def _scaled_covariates(design: Design) -> FloatArray:
    centred = design.covariates - design.covariates.mean(axis=0)
    return centred / np.sqrt((centred**2).mean(axis=0))


def _singular_values(design: Design) -> FloatArray:
    """Return those of batches and covariates, each column scaled to length 1."""
    covariates, indicators = _scaled_covariates(design), _indicators(design)
    whole = np.hstack([indicators / np.sqrt(design.batch_sizes), covariates / np.sqrt(len(covariates))])
    return np.asarray(np.linalg.svd(whole, compute_uv=False))


def _confounded(design: Design, singular: FloatArray) -> list[Finding]:
    """Return a stop for each column that batches and earlier columns determine, with what determines it.

    Rank is judged by singular values of the column-scaled design; each column is then projected in turn.
    """
    if singular[-1] > DEPENDENCE_RATIO * singular[0]:
        return []
    covariates, names = _scaled_covariates(design), design.coding.column_names
    indicators = _indicators(design)
    kept: list[int] = []
    findings = []
    for column, name in enumerate(names):
        basis = np.hstack([indicators, covariates[:, kept]])
        weights = np.linalg.lstsq(basis, covariates[:, column], rcond=None)[0]
        left = np.linalg.norm(covariates[:, column] - basis @ weights)
        if left > np.sqrt(DEPENDENCE_RATIO) * np.linalg.norm(covariates[:, column]):
            kept.append(column)
            continue
        by_batch = np.ptp(weights[: len(design.batches)]) > INVOLVED_RATIO
        involved = tuple(
            names[kept[i]] for i in np.flatnonzero(np.abs(weights[len(design.batches) :]) > INVOLVED_RATIO)
        )
        findings.append(_confounding(name, by_batch, involved, design.batches))
    return findings


def _confounding(name: str, by_batch: bool, involved: tuple[str, ...], batches: tuple[str, ...]) -> Finding:
    sources = [*(["batch"] if by_batch else []), *involved]
    message = (
        f"{name} is determined by {' and '.join(sources) or 'the other columns'}: their effects cannot "
        "be told apart. "
        + ("Batch correction would remove or invent its effect. " if by_batch else "")
        + (
            f"Take {name} out of the plan, or "
            f"{'merge batches that share it' if by_batch else 'keep one of them'}."
        )
    )
    code = "confounded_with_batch" if by_batch else "collinear_covariates"
    return Finding(code, "stop", message, columns=(name, *involved), batches=batches if by_batch else ())


def _conditioning(design: Design, singular: FloatArray, specification: Specification) -> list[Finding]:
    """Return the findings on near dependence: condition number of the scaled design, variance inflation."""
    covariates, indicators = _scaled_covariates(design), _indicators(design)
    sizes = indicators.sum(axis=0)
    within = covariates - indicators @ ((indicators.T @ covariates) / sizes[:, None])
    inflation = _inflation(covariates, within, design.coding)
    condition = float(singular[0] / singular[-1])
    high = sorted(
        (name for name in inflation if inflation[name] > HIGH_VIF), key=lambda name: -inflation[name]
    )
    described = listed([f"{name} (VIF {inflation[name]:.3g})" for name in high])
    columns = tuple(high)
    if condition > specification.maximum_condition:
        message = (
            f"The design is nearly singular: condition number {condition:.3g}, the plan's limit "
            f"{specification.maximum_condition:g}; {described}. Drop a covariate or merge batches."
        )
        return [Finding("nearly_confounded", "stop", message, columns=columns)]
    if high:
        message = (
            f"Batches and covariates are hard to tell apart: {described}; condition number {condition:.3g}. Their "
            "effects are uncertain: drop a covariate, merge batches, or take it up in the sensitivity analyses."
        )
        return [Finding("high_variance_inflation", "warn", message, columns=columns)]
    return [Finding("design_condition", "info", f"Condition number of the scaled design: {condition:.3g}.")]


def _inflation(covariates: FloatArray, within: FloatArray, coding: CovariateCoding) -> dict[str, float]:
    """Return the variance inflation of each covariate by batches and the other covariates.

    `covariates` are scaled [scans x columns], `within` the same about their batches' means. A factor of several columns
    has one figure that does not hang on its reference level: generalized VIF to the power 1 / columns (Fox and Monette,
    JASA 87:178 (1992)), which is the VIF where there is one column.
    """
    whole = covariates.T @ covariates / len(covariates)
    inverse = np.linalg.inv(within.T @ within / len(covariates))
    columns: dict[str, list[int]] = {}
    for index, (name, _) in enumerate(coding.columns):
        columns.setdefault(name, []).append(index)
    found = {}
    for name, at in columns.items():
        shown = coding.column_names[at[0]] if len(at) == 1 else name
        volumes = [np.linalg.slogdet(part[np.ix_(at, at)])[1] for part in (whole, inverse)]
        found[shown] = float(np.exp(sum(volumes) / len(at)))
    return found
