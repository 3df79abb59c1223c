"""What a plan makes of a feature set, and everything the gate says of it, before any method runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harmonization_app.algorithms.base import Dataset, Finding, Severity
from harmonization_app.algorithms.chain import check_chain
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import examined
from harmonization_app.diagnostics.blinding import check_blinding
from harmonization_app.diagnostics.feature_table import ROW_KEY_SEPARATOR
from harmonization_app.diagnostics.gate_plausible import check_plausible
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import FeatureSet
from harmonization_app.plan_document import PlanDocument
from harmonization_app.services.feature_matrix import select_rows
from harmonization_app.services.feature_set import ARM_NAMES, load_table
from harmonization_app.services.run_memory import estimate_memory
from harmonization_app.services.run_rows import RowDecisions, apply_decisions, decide_rows
from hub.core.errors import InvalidInput
from sites_app.models import Arm, Subject, Trial

_RANK = {"stop": 0, "warn": 1, "info": 2}


@dataclass(frozen=True)
class Prepared:
    """A dataset as a plan's methods see it, what was decided on its rows, and the findings on both."""

    dataset: Dataset
    decisions: RowDecisions
    findings: tuple[Finding, ...]
    calibration: Specification | None = None


def prepare(parsed: PlanDocument, feature_set: FeatureSet, former: RowDecisions | None = None) -> Prepared:
    """Return what a plan makes of a feature set; the decisions on rows are taken from `former` where it is given.

    Raises InvalidInput for a column or row that the feature set does not have.
    """
    whole = prepare_dataset(parsed, feature_set)
    if former is None:
        decisions, findings = decide_rows(parsed, feature_set, whole)
    else:
        decisions, findings = former, [_TAKEN_OVER]
    dataset = examined(apply_decisions(whole, decisions))
    findings += _blinding(parsed, feature_set.trial, dataset)
    findings.append(memory_finding(parsed, feature_set, whole=former is not None))
    return Prepared(dataset, decisions, tuple(findings), _calibration(parsed, whole, decisions))


_TAKEN_OVER = Finding(
    "row_decisions_taken_over", "info", "Rows are left out and relabelled as the repeated run decided."
)


def check_prepared(parsed: PlanDocument, prepared: Prepared) -> tuple[Finding, ...]:
    """Return every finding on a prepared dataset, stops first: rows, blinding, ranges, the method's gate,
    sensitivity.
    """
    findings = list(prepared.findings)
    if not prepared.dataset.rows:
        message = "No row is left to harmonize. Change what the plan leaves out."
        findings.append(Finding("no_rows_left", "stop", message))
        return _sorted(findings)
    findings += check_ranges(parsed, prepared.dataset)
    algorithm = get_algorithm(parsed.algorithm)
    if prepared.calibration is None:
        findings += algorithm.validate(prepared.dataset, parsed.specification)
        findings += _sensitivity(parsed, prepared.dataset)
    else:
        findings += check_chain(prepared.calibration, algorithm, prepared.dataset, parsed.specification)
    return _sorted(findings)


def check_ranges(parsed: PlanDocument, dataset: Dataset) -> list[Finding]:
    """Return a stop for values of the planned features outside the plausible ranges of the plan."""
    return check_plausible(dataset, parsed.plausible_ranges, parsed.specification.features)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: _RANK[finding.severity]))


def _sensitivity(parsed: PlanDocument, dataset: Dataset) -> list[Finding]:
    """Return a warning for each planned analysis whose own gate would refuse it."""
    findings = []
    for analysis in parsed.sensitivity:
        if analysis.algorithm is None or analysis.specification is None:
            continue
        own = get_algorithm(analysis.algorithm).validate(dataset, analysis.specification)
        if stops(own):
            why = " ".join(finding.message for finding in own if finding.severity == "stop")
            message = f"The sensitivity analysis by {analysis.algorithm} will be refused: {why}"
            findings.append(Finding("sensitivity_refused", "warn", message))
    return findings


def memory_finding(parsed: PlanDocument, feature_set: FeatureSet, *, whole: bool = False) -> Finding:
    """Return what the run would take of memory, a stop where that is more than it may."""
    estimate = estimate_memory(parsed, feature_set, whole=whole)
    severity: Severity = "info" if estimate.fits else "stop"
    return Finding("memory", severity, estimate.sentence)


def _blinding(parsed: PlanDocument, trial: Trial, dataset: Dataset) -> list[Finding]:
    if not parsed.blinded:
        message = "The plan is not blinded: columns may tell the treatment arm. Its rationale says why."
        return [Finding("not_blinded", "warn", message)]
    return check_blinding(
        {parsed.batch: dataset.batches, **dataset.covariates},
        ARM_NAMES,
        subjects=[row.partition(ROW_KEY_SEPARATOR)[0] for row in dataset.rows],
        arms=dict(Subject.objects.filter(trial=trial, arm__isnull=False).values_list("code", "arm__code")),
        arm_codes=set(Arm.objects.filter(trial=trial).values_list("code", flat=True)),
    )


def _calibration(parsed: PlanDocument, whole: Dataset, decisions: RowDecisions) -> Specification | None:
    """Return the plan's calibration; its measurements name the scanner, whatever the batches are split into."""
    if parsed.calibration is None:
        return None
    given = dict(zip(whole.rows, whole.batches, strict=True))
    merges = parsed.calibration.merge_batches
    originals = {label: str(given[row]) for row, label in decisions.batches.items()}
    split = {label: merges.get(original, original) for label, original in originals.items()}
    return replace(parsed.calibration, merge_batches={**merges, **split})


def prepare_dataset(parsed: PlanDocument, feature_set: FeatureSet) -> Dataset:
    """Return the dataset that a plan makes of a feature set: batch, covariates, excluded rows left out.

    Raises InvalidInput for a column or row that the feature set does not have.
    """
    table = load_table(feature_set)
    keys = {"subject": table.subjects, "visit": table.visits}
    names = parsed.columns
    dataset = table.to_dataset(parsed.batch, [name for name in names if name not in keys])
    unknown = [row for row in parsed.exclude_rows if row not in dataset.rows]
    if unknown:
        raise InvalidInput(
            f"The plan excludes rows that the feature set does not have: {', '.join(unknown)}."
        )
    numeric = _numeric(parsed)
    columns = {**dataset.covariates, **{name: keys[name] for name in names if name in keys}}
    covariates = {
        name: tuple(_number(cell) if name in numeric else (cell or None) for cell in column)
        for name, column in columns.items()
    }
    kept = [index for index, row in enumerate(dataset.rows) if row not in parsed.exclude_rows]
    whole = Dataset(
        dataset.values, dataset.features, dataset.rows, dataset.batches, covariates, dataset.units
    )
    return select_rows(whole, kept) if parsed.exclude_rows else whole


def _numeric(parsed: PlanDocument) -> set[str]:
    """Return the columns that some part of the plan takes as numbers."""
    numeric: set[str] = set()
    for item in parsed.specifications:
        numeric |= {covariate.name for covariate in item.covariates if covariate.kind == "continuous"}
        numeric |= {item.time} if item.time else set()
    return numeric


def _number(cell: Any) -> Any:
    """Return a continuous covariate's number; what is none stays text, and the gate names it."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell or None
