"""The audit chain: each event carries the digest of the one before it, made by the database itself."""

import pgtrigger
from django.db import models

# Order, separators and null marks are part of the format: verification and exports repeat them.
HASHED_COLUMNS = (
    "chain",
    "sequence",
    "recorded_at",
    "scope",
    "actor_id",
    "actor_name",
    "action",
    "object_type",
    "object_id",
    "payload",
    "items_root",
    "items_count",
    "previous_hash",
)

_HASH_SQL = """encode(sha256(convert_to(concat_ws(chr(31),
    {row}.chain, {row}.sequence::text,
    to_char({row}.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    coalesce({row}.scope::text, '-'), coalesce({row}.actor_id::text, '-'), {row}.actor_name, {row}.action,
    {row}.object_type, {row}.object_id, {row}.payload, {row}.items_root, {row}.items_count::text,
    {row}.previous_hash), 'UTF8')), 'hex')"""


def hash_sql(row: str) -> str:
    """Return the SQL expression of an event's hash; `row` is a table alias or NEW."""
    return _HASH_SQL.format(row=row)


class AuditHead(models.Model):
    """The last event of one chain; locked while an event is added, so that a chain never forks."""

    chain = models.CharField(primary_key=True, max_length=64)
    sequence = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64, default="0" * 64)

    class Meta:
        db_table = "core_audit_head"

    def __str__(self) -> str:
        return f"{self.chain} #{self.sequence}"


class AuditEvent(models.Model):
    """One thing that happened. `payload` is canonical JSON: old and new values, reason, origin, role.

    `chain` is the trial's id or "hub"; `items_root` is the Merkle root of the items of a bulk act.
    """

    chain = models.CharField(max_length=64)
    sequence = models.BigIntegerField()
    recorded_at = models.DateTimeField()
    scope = models.UUIDField(null=True, db_index=True)
    subscope = models.UUIDField(null=True)
    actor_id = models.UUIDField(null=True, db_index=True)
    actor_name = models.CharField(max_length=200)
    action = models.CharField(max_length=80, db_index=True)
    object_type = models.CharField(max_length=80)
    object_id = models.CharField(max_length=80)
    payload = models.TextField()
    items_root = models.CharField(max_length=64, default="")
    items_count = models.IntegerField(default=0)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        db_table = "core_audit_event"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["chain", "sequence"], name="an_audit_chain_has_no_two_events_alike"
            )
        ]
        indexes = [models.Index(fields=["object_type", "object_id"], name="audit_by_object")]
        triggers = [
            pgtrigger.Trigger(
                name="chain_audit_event",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[("head", "core_audit_head%ROWTYPE")],
                func=f"""
                    INSERT INTO core_audit_head (chain, sequence, hash) VALUES (NEW.chain, 0, repeat('0', 64))
                        ON CONFLICT (chain) DO NOTHING;
                    SELECT * INTO head FROM core_audit_head WHERE chain = NEW.chain FOR UPDATE;
                    NEW.sequence := head.sequence + 1;
                    NEW.recorded_at := clock_timestamp();
                    NEW.previous_hash := head.hash;
                    NEW.hash := {hash_sql("NEW")};
                    UPDATE core_audit_head SET sequence = NEW.sequence, hash = NEW.hash WHERE chain = NEW.chain;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Protect(
                name="audit_events_never_change",
                operation=pgtrigger.Update | pgtrigger.Delete,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.chain} #{self.sequence} {self.action}"
