"""Writing the audit chain: `record` inside the transaction of the act itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from hub.core.api.request_context import current_origin
from hub.core.audit.models import AuditEvent
from hub.core.canonical import canonical_json

HUB_CHAIN = "hub"


def record(
    *,
    actor: Any,
    action: str,
    obj: Any = None,
    object_type: str = "",
    object_id: str = "",
    scope: UUID | None = None,
    subscope: UUID | None = None,
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
    reason: str = "",
    items: Iterable[str] = (),
) -> None:
    """Add one event to the chain of `scope` (or the hub's own chain), in the caller's transaction.

    `obj` gives type, id, scope (its `trial_id`) and subscope (its `site_id`) where they are not said.
    `items` are the digests of what a bulk act touched; only their Merkle root and number are kept.
    Values must hold nothing that identifies a subject beyond the subject code.
    """
    if obj is not None:
        object_type = object_type or obj._meta.label_lower
        object_id = object_id or str(obj.pk)
        scope = scope or getattr(obj, "trial_id", None)
        subscope = subscope or getattr(obj, "site_id", None)
    digests = list(items)
    payload = {"old": dict(old or {}), "new": dict(new or {}), "reason": reason, "origin": current_origin()}
    AuditEvent.objects.create(
        chain=str(scope) if scope else HUB_CHAIN,
        sequence=0,
        recorded_at=timezone.now(),
        scope=scope,
        subscope=subscope,
        actor_id=getattr(actor, "pk", None),
        actor_name=str(actor) if getattr(actor, "pk", None) else "system",
        action=action,
        object_type=object_type,
        object_id=object_id,
        payload=canonical_json(payload).decode(),
        items_root=merkle_root(digests) if digests else "",
        items_count=len(digests),
    )


def merkle_root(digests: Iterable[str]) -> str:
    """Return the root (hexadecimal) of the Merkle tree over hexadecimal SHA-256 digests, in their order.

    Leaves and nodes are hashed with different prefixes (RFC 9162 section 2.1); an odd node moves up unpaired.
    """
    level = [hashlib.sha256(b"\x00" + bytes.fromhex(item)).digest() for item in digests]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)
        ]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()


def heads() -> list[tuple[str, int, str]]:
    """Return (chain, sequence, hash) of the last event of every chain."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT chain, sequence, hash FROM core_audit_head ORDER BY chain")
        return [(chain, int(sequence), digest) for chain, sequence, digest in cursor.fetchall()]
