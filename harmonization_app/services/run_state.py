"""The states of a run: it begins, it ends once, and it ends with its job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.models.plan import RUN_TRANSITIONS
from harmonization_app.services.run_output import plain_json
from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict
from sites_app.models import LockState, Trial

OVERTAKEN = "The data were locked before this run ended. Start an exploratory run instead."


def begin_run(run_id: str) -> bool:
    """Mark a run as running; False where it has ended, also just now because the data lock overtook it."""
    with transaction.atomic():
        row = HarmonizationRun.objects.select_for_update(no_key=True).get(pk=run_id)
        if row.is_final:
            return False
        if _overtaken(row):
            finish_run(row, RunState.FAILED, OVERTAKEN, {})
            return False
        before = row.state
        row.state, row.started_at = RunState.RUNNING, timezone.now()
        row.save(update_fields=["state", "started_at"])
        record(
            actor=None,
            action="harmonization_run.running",
            obj=row,
            old={"state": before},
            new={"state": row.state},
        )
    return True


def _overtaken(row: HarmonizationRun) -> bool:
    """Whether the data were locked before a primary run ended; the trial's row is held from here on."""
    if row.kind != HarmonizationRun.Kind.PRIMARY:
        return False
    trial = Trial.objects.select_for_update(no_key=True).get(pk=row.trial_id)
    return bool(trial.lock_state == LockState.LOCKED)


def finish_run(row: HarmonizationRun, state: str, reason: str, changes: dict[str, Any]) -> None:
    """Give a run its final state, once; a primary run that the data lock overtook becomes a failed exploratory one.

    Raises Conflict for a state that does not follow from the present one.
    """
    with transaction.atomic():
        locked = HarmonizationRun.objects.select_for_update(no_key=True).get(pk=row.pk)
        if locked.is_final:
            return
        before = {"state": locked.state, "kind": locked.kind}
        if _overtaken(locked):
            locked.kind = HarmonizationRun.Kind.EXPLORATORY
            locked.exploratory_reason = "post hoc: the data of the trial were locked while it ran"
            state, reason, changes = RunState.FAILED, OVERTAKEN, {}
        for name, value in changes.items():
            setattr(locked, name, plain_json(value))
        if state not in RUN_TRANSITIONS[locked.state]:
            raise Conflict(f"This run is {locked.state}; it cannot become {state}.")
        locked.state, locked.reason, locked.finished_at = state, reason[:2000], timezone.now()
        locked.save()
        _record_end(locked, before, reason)


def _record_end(row: HarmonizationRun, before: Mapping[str, str], reason: str) -> None:
    record(
        actor=None,
        action=f"harmonization_run.{row.state}",
        obj=row,
        old=before,
        new={
            "state": row.state,
            "kind": row.kind,
            "data": row.data_digest,
            "model": row.model_digest,
            "diagnostics": row.diagnostics_digest,
            "gate": digest(row.gate),
            "row_decisions": digest(row.row_decisions),
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
    if row is not None:
        finish_run(row, state, reason, {})
