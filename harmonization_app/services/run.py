"""Harmonization runs: primary under a locked plan before data lock, exploratory otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from harmonization_app.algorithms.registry import get_algorithm
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
from harmonization_app.services.algorithm import register_algorithms
from harmonization_app.services.run_memory import estimate_memory, require_memory
from harmonization_app.services.run_output import plain_json
from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict, InvalidInput
from hub.core.jobs.models import Job
from hub.core.jobs.services import cancel, enqueue
from hub.core.storage.blobs import get_blob
from qc_app.models import VersionState
from sites_app.models import LockState, Trial

JOB = "harmonization.run"
FINAL = (RunState.REFUSED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True)
class FrozenModel:
    """The run whose model is used, and what is done with it; `batch` and `reason` where a batch is added."""

    run: HarmonizationRun
    mode: str
    batch: str = ""
    reason: str = ""

    @classmethod
    def of(cls, run: HarmonizationRun) -> FrozenModel | None:
        """Return what a run used; None where it estimated a model of its own."""
        if run.model_of is None:
            return None
        return cls(run.model_of, run.mode, run.added_batch, run.step_reason)

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_of": self.run,
            "mode": self.mode,
            "added_batch": self.batch,
            "step_reason": self.reason,
        }


def start_run(
    *,
    actor: Any,
    feature_set: FeatureSet,
    plan: HarmonizationPlan | None = None,
    specification: Mapping[str, Any] | None = None,
    rerun_of: HarmonizationRun | None = None,
    exploratory: str = "",
    frozen: FrozenModel | None = None,
) -> HarmonizationRun:
    """Store a run and enqueue it. It is primary only under the plan in force and before data lock.

    `exploratory` is a reason that makes it exploratory in any case; `frozen` names the model that is used.
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
    estimate = estimate_memory(parsed, feature_set, repeated=rerun_of is not None)
    require_memory(estimate)
    with transaction.atomic():
        trial = Trial.objects.select_for_update(no_key=True).get(pk=trial.pk)
        # What was read before may have been superseded since: a run under it would not be primary any more.
        plan = HarmonizationPlan.objects.select_related("algorithm_version").get(pk=plan.pk) if plan else None
        version = (
            plan.algorithm_version if plan and plan.algorithm_version else _usable_version(parsed.algorithm)
        )
        why = exploratory or _why_exploratory(plan, parsed, version, trial)
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
            estimate=estimate.to_json(),
            created_by=actor,
            **(frozen.to_fields() if frozen else {}),
        )
        _enqueue(actor, row, parsed)
    return row


def _enqueue(actor: Any, row: HarmonizationRun, parsed: PlanDocument) -> None:
    """Enqueue the job of a new run and record its start."""
    job = enqueue(
        JOB, key=str(row.pk), arguments={"run_id": str(row.pk)}, scope=row.trial_id, requested_by=actor
    )
    row.job_id = job.pk
    row.save(update_fields=["job_id"])
    frozen = {"model_of": str(row.model_of_id), "batch": row.added_batch} if row.model_of_id else {}
    record(
        actor=actor,
        action="harmonization_run.started",
        obj=row,
        new={
            "kind": row.kind,
            "mode": row.mode,
            "plan": str(row.plan_id or ""),
            "feature_set": row.feature_set.digest,
            "blinded": parsed.blinded,
            **frozen,
        },
        reason=row.step_reason,
    )


def _usable_version(algorithm: str) -> AlgorithmVersion:
    """Return the version of the present code, locked or not: a run without a plan is exploratory anyway."""
    versions = [version for version in register_algorithms() if version.algorithm == algorithm]
    if not versions or versions[0].state == AlgorithmVersionState.RETIRED:
        raise Conflict(f"The present version of {algorithm} is retired. Choose another algorithm.")
    return versions[0]


def _why_exploratory(
    plan: HarmonizationPlan | None, parsed: PlanDocument, version: AlgorithmVersion, trial: Trial
) -> str:
    if plan is None:
        return "no plan: the specification was given with the run"
    if plan.state != VersionState.LOCKED:
        return f"the plan is {plan.state}, not locked"
    if get_algorithm(parsed.algorithm).exploratory:
        return f"the algorithm {parsed.algorithm} is exploratory by its nature"
    if version.state != AlgorithmVersionState.LOCKED:
        return f"the algorithm version is {version.state}, not locked"
    for name in parsed.companions:
        locked = AlgorithmVersion.objects.filter(algorithm=name, state=AlgorithmVersionState.LOCKED)
        if not locked.filter(code_digest=plan.companions.get(name, "")).exists():
            return f"the version of {name} that the plan was locked with is locked no more"
    if trial.lock_state == LockState.LOCKED:
        return "post hoc: the data of the trial were locked before this run"
    return ""


def finish_run(row: HarmonizationRun, state: str, reason: str, changes: dict[str, Any]) -> None:
    """Give a run its final state, once; a primary run that the data lock overtook becomes a failed exploratory one."""
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
            setattr(locked, name, plain_json(value))
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
                "row_decisions": digest(locked.row_decisions),
            },
            reason=reason[:500],
        )


def fail_run(arguments: dict[str, Any], reason: str) -> None:
    """Give a run whose job failed its final state and reason."""
    _follow_job(arguments, RunState.FAILED, reason)


def follow_cancelled_job(arguments: dict[str, Any], reason: str) -> None:
    """Give a run whose job was cancelled, begun or not, its final state and reason."""
    _follow_job(arguments, RunState.CANCELLED, reason)


def _follow_job(arguments: dict[str, Any], state: str, reason: str) -> None:
    row = HarmonizationRun.objects.filter(pk=arguments["run_id"]).first()
    if row is not None and row.state not in FINAL:
        finish_run(row, state, reason, {})


def cancel_run(*, actor: Any, run: HarmonizationRun) -> HarmonizationRun:
    """Cancel a run that has not ended; its job stops at its next progress report. Raises Conflict, NotAllowed."""
    require_analyst(actor, run.trial, "cancel harmonization runs")
    if run.state in FINAL:
        raise Conflict(f"This run is {run.state} already; there is nothing to cancel.")
    job = Job.objects.filter(kind=JOB, key=str(run.pk)).first()
    with transaction.atomic():
        if job is not None and not job.is_final:
            cancel(row=job)
        finish_run(run, RunState.CANCELLED, "Cancelled on request.", {})
        record(actor=actor, action="harmonization_run.cancel_requested", obj=run)
    run.refresh_from_db()
    return run


def rerun(*, actor: Any, run: HarmonizationRun) -> HarmonizationRun:
    """Run a succeeded run again from its stored inputs; the new run shows whether the result is equal.

    Raises Conflict where the run did not succeed, NotAllowed.
    """
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"This run is {run.state}; only a succeeded run can be repeated.")
    # A draft may have changed since, and a plan may have been locked: an exploratory run is repeated as it was.
    plan = run.plan if run.kind == HarmonizationRun.Kind.PRIMARY else None
    return start_run(
        actor=actor,
        feature_set=run.feature_set,
        plan=plan,
        specification=None if plan else run.specification,
        rerun_of=run,
        exploratory=run.exploratory_reason,
        frozen=FrozenModel.of(run),
    )


def load_diagnostics(run: HarmonizationRun) -> dict[str, Any]:
    """Return the diagnostics of a succeeded run; empty for any other."""
    return json.loads(get_blob(run.diagnostics_digest)) if run.diagnostics_digest else {}
