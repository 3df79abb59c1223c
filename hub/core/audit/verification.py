"""Walking the chain, and comparing it with the anchors that were written outside the database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from hub.core.audit.anchor import read_anchors
from hub.core.audit.models import hash_sql

_BROKEN_SQL = f"""
    SELECT chain, sequence, id, hash <> {hash_sql("e")} AS altered,
           sequence - coalesce(lag(sequence) OVER w, 0) AS step,
           previous_hash <> coalesce(lag(hash) OVER w, repeat('0', 64)) AS unlinked,
           recorded_at < coalesce(lag(recorded_at) OVER w, recorded_at) AS backwards
    FROM core_audit_event e WINDOW w AS (PARTITION BY chain ORDER BY sequence)
"""


@dataclass(frozen=True)
class Break:
    """Where the chain is broken and how; `sequence` counts within `chain`."""

    chain: str
    sequence: int
    problem: str


@dataclass(frozen=True)
class Verification:
    events: int
    chains: int
    anchors: int
    breaks: tuple[Break, ...]

    @property
    def intact(self) -> bool:
        return not self.breaks


def verify(anchor_file: Path | None = None) -> Verification:
    """Recompute every hash and link, compare the heads, and compare with `anchor_file` where given.

    The database alone cannot show a tail that was cut off with its head rewritten: only the anchors can.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT chain) FROM core_audit_event")
        events, chains = cursor.fetchone()
        cursor.execute(
            f"SELECT chain, sequence, altered, step, unlinked FROM ({_BROKEN_SQL}) walk"
            " WHERE altered OR unlinked OR step <> 1 ORDER BY id LIMIT 20"
        )
        breaks = [_chain_break(*row) for row in cursor.fetchall()]
        cursor.execute(
            "SELECT h.chain, h.sequence, e.hash IS NULL OR e.hash <> h.hash FROM core_audit_head h"
            " LEFT JOIN core_audit_event e ON e.chain = h.chain AND e.sequence ="
            " (SELECT max(sequence) FROM core_audit_event m WHERE m.chain = h.chain)"
            " WHERE h.sequence > 0"
        )
        breaks += [
            Break(chain, sequence, "the last event is not the one the chain's head names")
            for chain, sequence, differs in cursor.fetchall()
            if differs
        ]
    anchors = read_anchors(anchor_file) if anchor_file else []
    breaks += _anchor_breaks(anchors)
    return Verification(events=events, chains=chains, anchors=len(anchors), breaks=tuple(breaks))


def _chain_break(chain: str, sequence: int, altered: bool, step: int, unlinked: bool) -> Break:
    if altered:
        return Break(chain, sequence, "the event's content does not match its hash")
    if step != 1:
        return Break(chain, sequence, f"{step - 1} event(s) before this one are missing")
    return Break(chain, sequence, "the event does not follow from the one before it")


def _anchor_breaks(anchors: list[dict]) -> list[Break]:
    breaks = []
    with connection.cursor() as cursor:
        for anchor in anchors:
            if not anchor["signature_valid"]:
                breaks.append(
                    Break(anchor["chain"], anchor["sequence"], "the anchor's signature is not valid")
                )
                continue
            cursor.execute(
                "SELECT hash FROM core_audit_event WHERE chain = %s AND sequence = %s",
                [anchor["chain"], anchor["sequence"]],
            )
            row = cursor.fetchone()
            if row is None or row[0] != anchor["hash"]:
                problem = "an anchored event is missing" if row is None else "an anchored event was replaced"
                breaks.append(Break(anchor["chain"], anchor["sequence"], problem))
    return breaks
