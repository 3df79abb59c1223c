"""Carrying out a harmonization run: prepare, gate, harmonize, diagnose, cross-check, sensitivity, store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harmonization_app.algorithms.base import Finding, HarmonizationRefused
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, ChainResult
from harmonization_app.algorithms.environment import numerical_environment, one_blas_thread
from harmonization_app.algorithms.model import save_model
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.offline.computation import Computation, Outcome, compute
from harmonization_app.plan_document import PlanDocument, parse_plan
from harmonization_app.services.algorithm import DigestDiffers, require_present_code
from harmonization_app.services.application_execution import carry_out_application
from harmonization_app.services.fresh_process import compute_in_fresh_process
from harmonization_app.services.harmonized_table import put_harmonized
from harmonization_app.services.plan import locked_version
from harmonization_app.services.preparation import Prepared, check_prepared, prepare
from harmonization_app.services.run_blocks import compute_by_blocks, goes_by_blocks
from harmonization_app.services.run_checks import check_again, cross_check_findings, equality_of
from harmonization_app.services.run_output import (
    dataset_digest,
    plain_json,
    reasons,
    refused,
    values_digest,
    zip_model,
)
from harmonization_app.services.run_sensitivity import analyse_sensitivity, in_short
from harmonization_app.services.run_state import begin_run, finish_run
from harmonization_app.services.stored_input import stored_preparation
from hub.core.canonical import canonical_json
from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.services import CANCELLED, JobCancelled
from hub.core.storage.blobs import put_blob

Changes = dict[str, Any]


def execute_run(context: JobContext, *, run_id: str) -> None:
    """Carry out a queued run; refused by the gate, failed, cancelled and succeeded are all final and kept."""
    if not begin_run(run_id):
        return
    row = HarmonizationRun.objects.select_related(
        "feature_set__trial", "algorithm_version", "trial", "plan", "rerun_of", "model_of"
    ).get(pk=run_id)
    try:
        with one_blas_thread():
            state, reason, changes = _carry_out(context, row)
        context.progress(0.95, "storing the results")
    except JobCancelled:
        finish_run(row, RunState.CANCELLED, CANCELLED, {})
        raise
    finish_run(row, state, reason, changes)


def _carry_out(context: JobContext, row: HarmonizationRun) -> tuple[str, str, Changes]:
    """Return the final state of a run, its reason, and what is stored with it."""
    environment = numerical_environment()
    parsed = parse_plan(row.specification)
    _require_locked_digests(row, parsed, environment.digest)
    if row.model_of is not None:
        state, reason, stored = carry_out_application(
            row, lambda step: _computed(context, row, step), context.progress
        )
        return state, reason, {**stored, "environment": environment.to_json()}
    context.progress(0.02, "reading the features and what is known of their images")
    if row.rerun_of is None:
        prepared = prepare(parsed, row.feature_set)
    else:
        prepared = stored_preparation(parsed, row.rerun_of)
    context.progress(0.1, "checking the assumptions")
    findings = check_prepared(parsed, prepared)
    changes: Changes = {
        "environment": environment.to_json(),
        "input_digest": dataset_digest(prepared.dataset),
        "row_decisions": prepared.decisions.to_json(),
    }
    if stops(findings):
        return refused(findings, changes)
    return _fitted(_Work(context, row, parsed, prepared), findings, changes)


@dataclass(frozen=True, slots=True)
class _Work:
    """A run whose gate is open."""

    context: JobContext
    row: HarmonizationRun
    parsed: PlanDocument
    prepared: Prepared


def _fitted(work: _Work, findings: tuple[Finding, ...], changes: Changes) -> tuple[str, str, Changes]:
    """Harmonize, compute the result a second time, diagnose: the final state, its reason, what is stored."""
    row, parsed, prepared = work.row, work.parsed, work.prepared
    work.context.progress(0.3, "estimating the batch effects")
    try:
        outcome = _computed(work.context, row, _computation(parsed, prepared))
    except HarmonizationRefused as refusal:
        return refused((*refusal.findings, *findings), changes)
    chain = outcome.result
    work.context.progress(0.5, "computing the result a second time")
    check = check_again(parsed.algorithm, prepared.dataset, chain)
    primary = row.kind == HarmonizationRun.Kind.PRIMARY
    findings += tuple(cross_check_findings(check, primary=primary))
    summary = _summary(row, parsed, prepared, outcome, check)
    changes |= {"gate": [finding.to_json() for finding in findings], "summary": summary}
    if stops(findings):
        return RunState.FAILED, reasons(findings), changes
    diagnostics = _diagnostics(work, chain)
    summary["sensitivity"] = in_short(diagnostics["sensitivity"])
    return RunState.SUCCEEDED, "", changes | _outputs(row, prepared, chain, diagnostics, summary)


def _diagnostics(work: _Work, chain: ChainResult) -> dict[str, Any]:
    """Return what the method did to the data, and the sensitivity analyses of the plan."""
    work.context.progress(0.6, "diagnosing before and after")
    algorithm = get_algorithm(work.parsed.algorithm)
    report = algorithm.diagnose(chain.dataset, work.parsed.specification, chain.main)
    analyses = analyse_sensitivity(
        work.parsed, chain, lambda share, text: work.context.progress(0.75 + 0.2 * share, text)
    )
    return {**report.to_json(), "sensitivity": analyses}


def _require_locked_digests(row: HarmonizationRun, parsed: PlanDocument, environment_digest: str) -> None:
    """Raise DigestDiffers where code or environment is not what was locked; exploratory runs need the code."""
    require_present_code(row.algorithm_version)
    if row.kind != HarmonizationRun.Kind.PRIMARY:
        return
    for version in (row.algorithm_version, *(locked_version(name) for name in parsed.companions)):
        if version.environment_digest != environment_digest:
            raise DigestDiffers(
                f"{version} was locked in another numerical environment ({version.environment_digest[:12]}…, here"
                f" {environment_digest[:12]}…). Run it on a worker like the one it was verified on, or verify and"
                " lock a version for this environment."
            )
        locked = row.plan.companions.get(version.algorithm) if row.plan is not None else None
        if locked is not None and locked != version.code_digest:
            raise DigestDiffers(
                f"{version} is not the version that the plan was locked with. Amend the plan."
            )


def _computation(parsed: PlanDocument, prepared: Prepared) -> Computation:
    return Computation(
        mode="fit",
        algorithm=parsed.algorithm,
        specification=parsed.specification,
        dataset=prepared.dataset,
        calibration=prepared.calibration,
    )


def _computed(context: JobContext, row: HarmonizationRun, computation: Computation) -> Outcome:
    """Return the result of each step; a repetition is computed in a process of its own."""
    if row.rerun_of is None:
        if goes_by_blocks(computation):
            return Outcome(compute_by_blocks(context, row, computation), {})
        return Outcome(compute(computation), {})
    return compute_in_fresh_process(
        computation, lambda: context.progress(0.3, "computing in a process of its own")
    )


def _summary(
    row: HarmonizationRun,
    parsed: PlanDocument,
    prepared: Prepared,
    outcome: Outcome,
    check: Mapping[str, Any],
) -> dict[str, Any]:
    chain = outcome.result
    result = chain.main
    summary = {
        "values_digest": values_digest(result.values),
        "flags": {name: list(items) for name, items in result.flags.items()},
        "iterations": {pool: dict(counts) for pool, counts in result.iterations.items()},
        "cross_check": dict(check),
        "rows": len(prepared.dataset.rows),
        "features": len(result.model.features),
        "excluded": {**parsed.exclude_rows, **prepared.decisions.excluded},
        "blinded": parsed.blinded,
    }
    if chain.calibration is not None:
        summary["calibration"] = plain_json(chain.calibration.facts)
    if row.rerun_of_id:
        summary["equality"] = equality_of(row, outcome)
    return summary


def _outputs(
    row: HarmonizationRun,
    prepared: Prepared,
    chain: ChainResult,
    diagnostics: dict[str, Any],
    summary: Mapping[str, Any],
) -> Changes:
    """Return the digests of the stored files: harmonized table, models, diagnostics."""
    identity = {"run": str(row.pk), "kind": row.kind, "exploratory_reason": row.exploratory_reason}
    models = {step: save_model(model) for step, model in chain.models.items()}
    data_digest, stored = put_harmonized(row, prepared.dataset, chain.main)
    return {
        "data_digest": data_digest,
        "model_digest": put_blob(zip_model(models[MAIN], identity, models.get(CALIBRATION))),
        "diagnostics_digest": put_blob(canonical_json({**identity, **plain_json(diagnostics)})),
        "summary": {**summary, **stored},
    }
