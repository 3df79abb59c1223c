"""What a person decides about a file held in quarantine."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from sites_app.ingest.quarantine_area import quarantine_path
from sites_app.models import QuarantinedFile, Role
from sites_app.permissions import require_role

DECIDERS = frozenset({Role.DATA_MANAGER, Role.TRIAL_ADMINISTRATOR})


def discard_quarantined_file(*, actor: Any, quarantined: QuarantinedFile, reason: str) -> QuarantinedFile:
    """Delete a held file's content for good; its row, digest and the reason stay.

    Raises NotAllowed, InvalidInput without a reason, Conflict where it was discarded before.
    """
    require_role(actor, DECIDERS, quarantined.trial_id, quarantined.site_id, "discard quarantined files")
    if not reason.strip():
        raise InvalidInput("Say why this file is discarded; the reason is kept in the audit trail.")
    with transaction.atomic():
        row = (
            QuarantinedFile.objects.select_for_update(no_key=True)
            .select_related("file")
            .get(pk=quarantined.pk)
        )
        if row.state == QuarantinedFile.State.DISCARDED:
            raise Conflict("This file was discarded before.")
        row.state = QuarantinedFile.State.DISCARDED
        row.save(update_fields=["state"])
        record(
            actor=actor,
            action="quarantine.discarded",
            obj=row,
            old={"state": QuarantinedFile.State.HELD},
            new={"state": row.state, "code": row.file.code},
            reason=reason.strip(),
            items=[row.file.sha256],
        )
        transaction.on_commit(lambda: quarantine_path(row.pk).unlink(missing_ok=True))
    return row
