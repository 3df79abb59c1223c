"""Harmonization runs: primary under a locked plan before data lock, exploratory otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

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
from harmonization_app.services.algorithm import register_algorithms, require_present_code
from harmonization_app.services.run_memory import estimate_memory, require_memory
from harmonization_app.services.run_state import finish_run
from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from hub.core.jobs.models import Job
from hub.core.jobs.services import CANCELLED, cancel, enqueue
from hub.core.storage.blobs import get_blob
from qc_app.models import VersionState
from sites_app.models import LockState, Trial

JOB = "harmonization.run"


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
    Raises NotAllowed, InvalidInput, PlanInvalid, DigestDiffers where the plan's method is not the installed one,
    and Conflict where the same primary run is under way.
    """
    require_analyst(actor, feature_set.trial, "run harmonizations")
    document = _document(feature_set, plan, specification)
    parsed = parse_plan(document)
    estimate = estimate_memory(parsed, feature_set, whole=bool(rerun_of or frozen))
    require_memory(estimate)
    row = HarmonizationRun(
        trial=feature_set.trial,
        feature_set=feature_set,
        specification=document,
        rerun_of=rerun_of,
        estimate=estimate.to_json(),
        created_by=actor,
        **(frozen.to_fields() if frozen else {}),
    )
    with transaction.atomic():
        trial = Trial.objects.select_for_update(no_key=True).get(pk=row.trial_id)
        _place(row, plan, parsed, trial, exploratory)
        row.save(force_insert=True)
        enqueue_run(row)
        _record_start(row, parsed)
    return row


def _document(
    feature_set: FeatureSet, plan: HarmonizationPlan | None, specification: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the plan's document, or the specification given instead. Raises InvalidInput."""
    if (plan is None) == (specification is None):
        raise InvalidInput("Send either a plan or an inline specification, one of the two.")
    if plan is not None and plan.trial_id != feature_set.trial_id:
        raise InvalidInput("The plan and the feature set belong to different trials.")
    return dict(plan.document if plan is not None else specification or {})


def _place(
    row: HarmonizationRun,
    plan: HarmonizationPlan | None,
    parsed: PlanDocument,
    trial: Trial,
    exploratory: str,
) -> None:
    """Bind a new run to its plan and algorithm version and say of what kind it is; the trial's row is held.

    Raises Conflict where the plan has changed meanwhile, or the same primary run is under way.
    """
    if plan is not None:
        # What was read before may have been superseded since: a run under it would not be primary any more.
        plan = HarmonizationPlan.objects.select_related("algorithm_version").get(pk=plan.pk)
        if plan.document != row.specification:
            raise Conflict("The plan was changed a moment ago. Read it, then start the run again.")
        row.plan, row.plan_digest = plan, plan.digest
    locked = plan.algorithm_version if plan else None
    if locked is not None:
        require_present_code(locked)
    row.algorithm_version = locked or _usable_version(parsed.algorithm)
    why = exploratory or _why_exploratory(plan, parsed, row.algorithm_version, trial)
    row.kind = HarmonizationRun.Kind.EXPLORATORY if why else HarmonizationRun.Kind.PRIMARY
    row.exploratory_reason = why
    if not why:
        _require_alone(row)


def _require_alone(row: HarmonizationRun) -> None:
    """Raise Conflict where the same primary run is under way: asked for twice, it would be computed twice."""
    same = HarmonizationRun.objects.filter(
        kind=HarmonizationRun.Kind.PRIMARY,
        state__in=[RunState.QUEUED, RunState.RUNNING],
        plan=row.plan,
        feature_set=row.feature_set,
        rerun_of=row.rerun_of,
        mode=row.mode,
        model_of=row.model_of,
        added_batch=row.added_batch,
    ).first()
    if same is not None:
        raise Conflict(
            f"This primary run is under way already: run {same.pk}, {same.state}. Wait for it, or cancel it first."
        )


def enqueue_run(row: HarmonizationRun) -> None:
    """Give a run its job; the caller holds the transaction."""
    job = enqueue(
        JOB,
        key=str(row.pk),
        arguments={"run_id": str(row.pk)},
        scope=row.trial_id,
        requested_by=row.created_by,
    )
    HarmonizationRun.objects.filter(pk=row.pk).update(job_id=job.pk)
    row.job_id = job.pk


def _record_start(row: HarmonizationRun, parsed: PlanDocument) -> None:
    frozen = {"model_of": str(row.model_of_id), "batch": row.added_batch} if row.model_of_id else {}
    record(
        actor=row.created_by,
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


def cancel_run(*, actor: Any, run: HarmonizationRun) -> HarmonizationRun:
    """Cancel a run that has not ended; its job stops at its next progress report. Raises Conflict, NotAllowed."""
    require_analyst(actor, run.trial, "cancel harmonization runs")
    with transaction.atomic():
        # Rows are held in the order in which a job's end holds them, the audit chain last: nobody waits in a circle.
        job = Job.objects.filter(kind=JOB, key=str(run.pk)).order_by("-created_at").first()
        if job is not None and not job.is_final:
            cancel(row=job)
        finish_run(run, RunState.CANCELLED, CANCELLED, {})
        before, over = run.state, run.is_final
        run.refresh_from_db()
        if over or run.state != RunState.CANCELLED:
            raise Conflict(f"This run is {run.state} already; there is nothing to cancel.")
        record(actor=actor, action="harmonization_run.cancel_requested", obj=run, old={"state": before})
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
