"""Reading the data lock: its history and its anchor outside the database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from harmonization_app.models import DataLock
from hub.core.audit.anchor import read_anchors
from hub.core.audit.models import AuditEvent
from sites_app.models import Trial


@dataclass(frozen=True)
class LockEvent:
    """One change of the data lock's state."""

    at: datetime
    who: str
    action: str
    reason: str
    hash: str


def visible_lock(user: Any, trial: Trial) -> DataLock | None:
    rows = DataLock.objects.visible_to(user).filter(trial=trial)
    return rows.select_related("signature", "trial").first()  # type: ignore[no-any-return]


def lock_history(data_lock: DataLock) -> list[LockEvent]:
    """Return the data lock's events of the audit chain, oldest first."""
    rows = AuditEvent.objects.filter(
        scope=data_lock.trial_id, object_id=str(data_lock.pk), action__startswith="data_lock."
    ).order_by("sequence")
    return [
        LockEvent(
            row.recorded_at,
            row.actor_name,
            row.action.removeprefix("data_lock."),
            json.loads(row.payload).get("reason", ""),
            row.hash,
        )
        for row in rows
    ]


def anchors_of(data_lock: DataLock) -> list[dict[str, Any]]:
    """Return the anchors written at this lock, for the trial's own chain."""
    return [
        anchor
        for anchor in read_anchors(settings.HUB_ANCHOR_FILE)
        if anchor.get("purpose") == f"data lock {data_lock.pk}" and anchor["chain"] == str(data_lock.trial_id)
    ]
