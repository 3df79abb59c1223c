"""The life of a deviation: acknowledged by the site, decided by data management."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import transaction
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict, InvalidInput
from hub.core.signatures.services import ProvenIdentity, prove_identity, sign
from qc_app.models import Deviation, DeviationState
from qc_app.models.deviation import DEVIATION_TRANSITIONS
from qc_app.permissions import DEVIATION_ACKNOWLEDGERS, DEVIATION_DECIDERS
from qc_app.services.findings import ACTIVE, Changes, Target, close_system_queries, sync_deviations
from qc_app.services.visit_check import lock_visit
from qc_app.services.waivers import SCOPES
from sites_app.models import LockState
from sites_app.permissions import require_role

_PAST_TENSE = {
    DeviationState.ACKNOWLEDGED: "acknowledged",
    DeviationState.WAIVED: "waived",
    DeviationState.RESOLVED: "resolved",
    DeviationState.REJECTED: "rejected",
}


@dataclass(frozen=True)
class Waiver:
    """What a waiver says: how far it reaches, until when (None: no end), and who signed it."""

    scope: str
    expires_on: date | None
    meaning: str
    identity: ProvenIdentity

    def as_json(self) -> dict[str, Any]:
        return {"scope": self.scope, "expires_on": self.expires_on.isoformat() if self.expires_on else None}


def acknowledge(*, actor: Any, deviation: Deviation, reason: str = "") -> Deviation:
    """Say that the site knows of the deviation. Raises NotAllowed, Conflict."""
    require_role(
        actor, DEVIATION_ACKNOWLEDGERS, deviation.trial_id, deviation.site_id, "acknowledge a deviation"
    )
    return transition(actor=actor, deviation=deviation, to=DeviationState.ACKNOWLEDGED, reason=reason)


def resolve(*, actor: Any, deviation: Deviation, reason: str) -> Deviation:
    """Close a deviation as dealt with, with the reason. Raises NotAllowed, InvalidInput, Conflict."""
    _require_decision(actor, deviation, "resolve", reason)
    return transition(actor=actor, deviation=deviation, to=DeviationState.RESOLVED, reason=reason)


def reject(*, actor: Any, deviation: Deviation, reason: str) -> Deviation:
    """Close a deviation as none, with the reason. Raises NotAllowed, InvalidInput, Conflict."""
    _require_decision(actor, deviation, "reject", reason)
    return transition(actor=actor, deviation=deviation, to=DeviationState.REJECTED, reason=reason)


def waive(
    *,
    actor: Any,
    deviation: Deviation,
    reason: str,
    scope: str,
    password: str,
    meaning: str,
    expires_on: date | None = None,
    otp: str = "",
) -> Deviation:
    """Accept a deviation with a signature, for a scope and until a day (inclusive).

    Raises NotAllowed, InvalidInput, Conflict, SignatureRefused.
    """
    _require_decision(actor, deviation, "waive", reason)
    _require_valid_waiver(deviation, scope, expires_on, meaning)
    if DeviationState.WAIVED not in DEVIATION_TRANSITIONS[deviation.state]:
        raise _conflict(deviation, DeviationState.WAIVED)
    identity = prove_identity(actor=actor, password=password, otp=otp)
    waiver = Waiver(scope, expires_on, meaning, identity)
    return transition(
        actor=actor, deviation=deviation, to=DeviationState.WAIVED, reason=reason, waiver=waiver
    )


def transition(
    *, actor: Any, deviation: Deviation, to: DeviationState, reason: str, waiver: Waiver | None = None
) -> Deviation:
    """Move a deviation to another state, as the table allows, with its audit row; the caller asked for the role.

    A decision also closes the system queries about it that nobody answered. Raises Conflict.
    """
    with transaction.atomic():
        row = Deviation.objects.select_for_update(no_key=True, of=("self",)).get(pk=deviation.pk)
        if to not in DEVIATION_TRANSITIONS[row.state]:
            raise _conflict(row, to)
        old = row.state
        row.state, row.reason = to, reason.strip()[:1000]
        if row.is_closed:
            row.closed_at, row.closed_by = timezone.now(), actor
        if waiver is not None:
            _sign_waiver(row, waiver)
        row.save(update_fields=["state", "reason", "closed_at", "closed_by", "waiver", "signature"])
        closed = (
            close_system_queries([row.pk], f"The deviation was {_PAST_TENSE[to]}.") if row.is_closed else []
        )
        record(
            actor=actor,
            action=f"deviation.{_PAST_TENSE[to]}",
            obj=row,
            old={"state": old},
            new={"state": row.state, "waiver": row.waiver, "queries_closed": [str(item) for item in closed]},
            reason=row.reason,
        )
    return row


def expire_waivers() -> int:
    """Reopen what was waived until a day that has passed, as new deviations; return how many."""
    today = timezone.now().date().isoformat()
    expired = (
        Deviation.objects.filter(state=DeviationState.WAIVED, waiver__expires_on__lt=today)
        .exclude(waiver__has_key="expired")
        .exclude(trial__lock_state=LockState.LOCKED)
        .order_by("opened_at")[:200]
    )
    for row in list(expired):
        _expire(row)
    return len(expired)


def _expire(waived: Deviation) -> None:
    changes = Changes()
    with transaction.atomic():
        visit = lock_visit(waived.visit_id)
        row = Deviation.objects.select_for_update(no_key=True, of=("self",)).get(pk=waived.pk)
        if "expired" in (row.waiver or {}):
            return
        row.waiver = {**(row.waiver or {}), "expired": True}
        row.save(update_fields=["waiver"])
        if _still_found(row):
            about = Target(visit, row.series, row.expected_key)
            active = about.rows().filter(state__in=ACTIVE).values_list("verdict", flat=True)
            sync_deviations(
                about=about, protocol=row.protocol, verdicts=[*active, row.verdict], changes=changes
            )
        record(actor=None, action="waiver.expired", obj=row, new=changes.as_json())


def _still_found(row: Deviation) -> bool:
    """Whether the check in force still has the finding, and no other series took its place."""
    if row.series is not None:
        check = row.series.checks.filter(is_current=True, replaced_by=None).first()
    else:
        check = getattr(row.visit, "check_result", None)
    verdicts = check.verdicts if check is not None else []
    return any(item["rule"] == row.rule and item["outcome"] != "compliant" for item in verdicts)


def _sign_waiver(row: Deviation, waiver: Waiver) -> None:
    row.waiver = waiver.as_json()
    content = {"deviation": str(row.pk), "verdict": row.verdict, "reason": row.reason, **row.waiver}
    row.signature = sign(
        identity=waiver.identity, meaning=waiver.meaning, obj=row, object_digest=digest(content)
    )


def _require_decision(actor: Any, deviation: Deviation, act: str, reason: str) -> None:
    require_role(actor, DEVIATION_DECIDERS, deviation.trial_id, deviation.site_id, f"{act} a deviation")
    if not reason.strip():
        raise InvalidInput(
            f"Give the reason why you {act} this deviation.",
            errors=[{"field": "reason", "message": "Give the reason."}],
        )


def _require_valid_waiver(deviation: Deviation, scope: str, expires_on: date | None, meaning: str) -> None:
    errors = []
    if scope not in SCOPES:
        errors.append({"field": "scope", "message": f"Choose one of: {', '.join(SCOPES)}."})
    elif getattr(deviation, SCOPES[scope]) is None:
        errors.append(
            {"field": "scope", "message": f"This deviation belongs to no {scope}; choose another scope."}
        )
    if expires_on is not None and expires_on < timezone.now().date():
        errors.append({"field": "expires_on", "message": "Choose today or a later day."})
    if not meaning.strip():
        errors.append({"field": "meaning", "message": "Say what the signature means."})
    if errors:
        raise InvalidInput("The waiver is not complete; see errors.", errors=errors)


def _conflict(row: Deviation, to: str) -> Conflict:
    return Conflict(f"This deviation is {row.state}; it cannot be {to} from there.")
