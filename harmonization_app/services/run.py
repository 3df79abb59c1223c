"""Harmonization runs: primary under a locked plan before data lock, exploratory otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from django.db import transaction
from django.utils import timezone

from harmonization_app.algorithms.base import Dataset, FloatArray, Result
from harmonization_app.algorithms.environment import numerical_environment, one_blas_thread
from harmonization_app.algorithms.model import save_model
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.algorithms.verification.crosscheck import cross_check
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import (
    AlgorithmVersion,
    AlgorithmVersionState,
    FeatureSet,
    HarmonizationPlan,
    HarmonizationRun,
    RunState,
)
from harmonization_app.permissions import require_analyst
from harmonization_app.plan_document import PlanDocument, parse_plan
from harmonization_app.services.algorithm import DigestDiffers, register_algorithms, require_present_code
from harmonization_app.services.plan import prepare_dataset
from harmonization_app.services.run_output import harmonized_csv, read_harmonized, zip_model
from hub.core.audit.services import record
from hub.core.canonical import canonical_json, digest
from hub.core.errors import Conflict, HubError, InvalidInput
from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.models import Job
from hub.core.jobs.services import cancel, enqueue
from hub.core.storage.blobs import get_blob, put_blob
from qc_app.models import VersionState
from sites_app.models import LockState, Trial

JOB = "harmonization.run"
FINAL = (RunState.REFUSED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


def start_run(
    *,
    actor: Any,
    feature_set: FeatureSet,
    plan: HarmonizationPlan | None = None,
    specification: Mapping[str, Any] | None = None,
    rerun_of: HarmonizationRun | None = None,
) -> HarmonizationRun:
    """Store a run and enqueue it. It is primary only under the plan in force and before data lock.

    Raises NotAllowed, InvalidInput, PlanInvalid, Conflict.
    """
    trial = feature_set.trial
    require_analyst(actor, trial, "run harmonizations")
    if (plan is None) == (specification is None):
        raise InvalidInput("Send either a plan or an inline specification, one of the two.")
    if plan is not None and plan.trial_id != trial.pk:
        raise InvalidInput("The plan and the feature set belong to different trials.")
    document = dict(plan.document if plan is not None else specification or {})
    parsed = parse_plan(document)
    with transaction.atomic():
        trial = Trial.objects.select_for_update(no_key=True).get(pk=trial.pk)
        version = (
            plan.algorithm_version if plan and plan.algorithm_version else _usable_version(parsed.algorithm)
        )
        why = _why_exploratory(plan, version, trial)
        row = HarmonizationRun.objects.create(
            trial=trial,
            plan=plan,
            plan_digest=plan.digest if plan else "",
            algorithm_version=version,
            feature_set=feature_set,
            specification=document,
            kind=HarmonizationRun.Kind.EXPLORATORY if why else HarmonizationRun.Kind.PRIMARY,
            exploratory_reason=why,
            rerun_of=rerun_of,
            created_by=actor,
        )
        job = enqueue(
            JOB, key=str(row.pk), arguments={"run_id": str(row.pk)}, scope=trial.pk, requested_by=actor
        )
        row.job_id = job.pk
        row.save(update_fields=["job_id"])
        record(
            actor=actor,
            action="harmonization_run.started",
            obj=row,
            new={"kind": row.kind, "plan": str(plan.pk) if plan else "", "feature_set": feature_set.digest},
        )
    return row


def _usable_version(algorithm: str) -> AlgorithmVersion:
    """Return the version of the present code, locked or not: a run without a plan is exploratory anyway."""
    versions = [version for version in register_algorithms() if version.algorithm == algorithm]
    if not versions or versions[0].state == AlgorithmVersionState.RETIRED:
        raise Conflict(f"The present version of {algorithm} is retired. Choose another algorithm.")
    return versions[0]


def _why_exploratory(plan: HarmonizationPlan | None, version: AlgorithmVersion, trial: Trial) -> str:
    if plan is None:
        return "no plan: the specification was given with the run"
    if plan.state != VersionState.LOCKED:
        return f"the plan is {plan.state}, not locked"
    if version.state != AlgorithmVersionState.LOCKED:
        return f"the algorithm version is {version.state}, not locked"
    if trial.lock_state == LockState.LOCKED:
        return "post hoc: the data of the trial were locked before this run"
    return ""


def execute_run(context: JobContext, *, run_id: str) -> None:
    """Carry out a queued run; refused by the gate, failed and succeeded are all final and kept."""
    row = HarmonizationRun.objects.select_related("feature_set", "algorithm_version", "trial").get(pk=run_id)
    if row.state in FINAL:
        return
    HarmonizationRun.objects.filter(pk=run_id).update(state=RunState.RUNNING, started_at=timezone.now())
    with one_blas_thread():
        environment = numerical_environment()
        _require_locked_digests(row, environment.digest)
        parsed = parse_plan(row.specification)
        dataset = prepare_dataset(parsed, row.feature_set)
        algorithm = get_algorithm(parsed.algorithm)
        context.progress(0.1, "checking the assumptions")
        findings = algorithm.validate(dataset, parsed.specification)
        changes: dict[str, Any] = {
            "gate": [finding.to_json() for finding in findings],
            "environment": environment.to_json(),
            "input_digest": _values_digest(dataset),
        }
        if stops(findings):
            refusal = " ".join(finding.message for finding in findings if finding.severity == "stop")
            _finish(row, RunState.REFUSED, refusal, changes)
            return
        context.progress(0.3, "estimating the batch effects")
        result = algorithm.harmonize(dataset, parsed.specification)
        context.progress(0.6, "diagnosing before and after")
        report = algorithm.diagnose(dataset, parsed.specification, result)
        changes |= _outputs(row, parsed, dataset, result, report.to_json())
    context.progress(0.95, "storing the results")
    _finish(row, RunState.SUCCEEDED, "", changes)


def _require_locked_digests(row: HarmonizationRun, environment_digest: str) -> None:
    """Raise DigestDiffers where code or environment is not what was locked; exploratory runs need the code."""
    version = row.algorithm_version
    require_present_code(version)
    if row.kind == HarmonizationRun.Kind.PRIMARY and version.environment_digest != environment_digest:
        raise DigestDiffers(
            f"{version} was locked in another numerical environment ({version.environment_digest[:12]}…, here"
            f" {environment_digest[:12]}…). Run it on a worker like the one it was verified on, or verify and lock"
            " a version for this environment."
        )


def _outputs(
    row: HarmonizationRun, parsed: PlanDocument, dataset: Dataset, result: Result, diagnostics: dict[str, Any]
) -> dict[str, Any]:
    check = _cross_check(parsed, dataset, result)
    identity = {"run": str(row.pk), "kind": row.kind, "exploratory_reason": row.exploratory_reason}
    summary = {
        "values_digest": _digest_of(result.values),
        "flags": {name: list(items) for name, items in result.flags.items()},
        "iterations": {pool: dict(counts) for pool, counts in result.iterations.items()},
        "cross_check": check,
        "rows": len(dataset.rows),
        "features": len(result.model.features),
        "excluded": dict(parsed.exclude_rows),
    }
    if row.rerun_of_id:
        summary["equality"] = _equality(row, result)
    return {
        "summary": summary,
        "data_digest": put_blob(harmonized_csv(row, dataset, result)),
        "model_digest": put_blob(zip_model(save_model(result.model), identity)),
        "diagnostics_digest": put_blob(canonical_json({**identity, **_plain(diagnostics)})),
    }


def _cross_check(parsed: PlanDocument, dataset: Dataset, result: Result) -> dict[str, Any]:
    """Compute the result a second time by plain least squares; say so where that is not possible."""
    try:
        return cross_check(dataset, result, get_algorithm(parsed.algorithm).tolerance_sd).to_json()
    except HubError as error:
        return {"passed": None, "reason": error.detail}


def _equality(row: HarmonizationRun, result: Result) -> dict[str, Any]:
    """Compare a rerun with its original: equal bits, else the largest difference in feature SD."""
    original = HarmonizationRun.objects.get(reruns=row)
    bitwise = original.summary.get("values_digest") == _digest_of(result.values)
    iterations = {pool: dict(counts) for pool, counts in result.iterations.items()}
    answer: dict[str, Any] = {
        "of": str(original.pk),
        "bitwise": bitwise,
        "iterations_equal": original.summary.get("iterations") == iterations,
    }
    if not bitwise:
        former = read_harmonized(get_blob(original.data_digest), len(result.values[0]))
        sd = np.nanstd(result.values, axis=0)
        answer["max_difference_sd"] = float(
            np.nanmax(np.abs(former - result.values) / np.where(sd > 0, sd, 1.0))
        )
    return answer


def _finish(row: HarmonizationRun, state: str, reason: str, changes: dict[str, Any]) -> None:
    with transaction.atomic():
        locked = HarmonizationRun.objects.select_for_update(no_key=True).get(pk=row.pk)
        if locked.state in FINAL:
            return
        if locked.kind == HarmonizationRun.Kind.PRIMARY:
            trial = Trial.objects.select_for_update(no_key=True).get(pk=row.trial_id)
            if trial.lock_state == LockState.LOCKED:
                locked.kind = HarmonizationRun.Kind.EXPLORATORY
                locked.exploratory_reason = "post hoc: the data of the trial were locked while it ran"
                state, changes = RunState.FAILED, {}
                reason = "The data were locked before this run ended. Start an exploratory run instead."
        for name, value in changes.items():
            setattr(locked, name, _plain(value))
        locked.state, locked.reason, locked.finished_at = state, reason[:2000], timezone.now()
        locked.save()
        record(
            actor=None,
            action=f"harmonization_run.{state}",
            obj=locked,
            new={
                "kind": locked.kind,
                "data": locked.data_digest,
                "model": locked.model_digest,
                "diagnostics": locked.diagnostics_digest,
                "gate": digest(locked.gate),
            },
            reason=reason[:500],
        )


def fail_run(arguments: dict[str, Any], reason: str) -> None:
    """Give a run whose job failed its final state and reason."""
    row = HarmonizationRun.objects.filter(pk=arguments["run_id"]).first()
    if row is not None and row.state not in FINAL:
        _finish(row, RunState.FAILED, reason, {})


def cancel_run(*, actor: Any, run: HarmonizationRun) -> HarmonizationRun:
    """Cancel a run that has not ended; its job stops at its next progress report. Raises Conflict, NotAllowed."""
    require_analyst(actor, run.trial, "cancel harmonization runs")
    if run.state in FINAL:
        raise Conflict(f"This run is {run.state} already; there is nothing to cancel.")
    job = Job.objects.filter(kind=JOB, key=str(run.pk)).first()
    with transaction.atomic():
        if job is not None and not job.is_final:
            cancel(row=job)
        _finish(run, RunState.CANCELLED, "Cancelled on request.", {})
        record(actor=actor, action="harmonization_run.cancel_requested", obj=run)
    run.refresh_from_db()
    return run


def rerun(*, actor: Any, run: HarmonizationRun) -> HarmonizationRun:
    """Run a succeeded run again from its stored inputs; the new run shows whether the result is equal.

    Raises Conflict where the run did not succeed, NotAllowed.
    """
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"This run is {run.state}; only a succeeded run can be repeated.")
    return start_run(
        actor=actor,
        feature_set=run.feature_set,
        plan=run.plan,
        specification=None if run.plan else run.specification,
        rerun_of=run,
    )


def _values_digest(dataset: Dataset) -> str:
    labels = {
        "rows": list(dataset.rows),
        "features": list(dataset.features),
        "batches": list(dataset.batches),
        "covariates": {name: list(column) for name, column in dataset.covariates.items()},
        "values": _digest_of(dataset.values),
    }
    return digest(_plain(labels))


def _digest_of(values: FloatArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """Return `value` as JSON holds it: NaN and infinity become null."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value


def load_diagnostics(run: HarmonizationRun) -> dict[str, Any]:
    """Return the diagnostics of a succeeded run; empty for any other."""
    return json.loads(get_blob(run.diagnostics_digest)) if run.diagnostics_digest else {}
