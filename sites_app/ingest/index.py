"""Rows of thousands of instances and files, written by COPY."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connection

from sites_app.models import Instance, SubmissionFile

_INSTANCE_COLUMNS = (
    "id",
    "trial_id",
    "site_id",
    "series_id",
    "segment_id",
    "sop_instance_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "instance_number",
    "frames",
    "offset",
    "size",
    "sha256",
    "original_sha256",
)
_FILE_COLUMNS = (
    "id",
    "trial_id",
    "site_id",
    "submission_id",
    "upload_id",
    "ordinal",
    "sha256",
    "size",
    "outcome",
    "code",
    "detail",
    "action",
    "instance_id",
)


def insert_instances(instances: Sequence[Instance]) -> int:
    """Insert rows, leaving out those whose SOP UID the site has stored already; return how many are new.

    Rows go in in the order of their UIDs, so that two workers with the same ones do not deadlock.
    """
    table = Instance._meta.db_table
    columns = ", ".join(f'"{name}"' for name in _INSTANCE_COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp.new_instances")
        cursor.execute(f"CREATE TEMP TABLE new_instances (LIKE {table}) ON COMMIT DROP")
        _copy(cursor, "new_instances", _INSTANCE_COLUMNS, instances)
        cursor.execute(
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new_instances ORDER BY sop_instance_uid "
            "ON CONFLICT (site_id, sop_instance_uid) DO NOTHING"
        )
        return int(cursor.rowcount)


def insert_files(files: Sequence[SubmissionFile]) -> None:
    """Insert the rows that say what became of each file."""
    with connection.cursor() as cursor:
        _copy(cursor, SubmissionFile._meta.db_table, _FILE_COLUMNS, files)


@contextmanager
def advisory_lock(purpose: str, identifier: UUID) -> Iterator[bool]:
    """Hold a session lock while one worker works on one thing; False where another worker has it."""
    key = int.from_bytes(identifier.bytes[8:], "big", signed=True) ^ sum(purpose.encode())
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        held = bool(cursor.fetchone()[0])
    try:
        yield held
    finally:
        if held and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def _copy(cursor: Any, table: str, columns: Sequence[str], rows: Iterable[Any]) -> None:
    text = io.StringIO()
    for row in rows:
        text.write("\t".join(_cell(getattr(row, name)) for name in columns))
        text.write("\n")
    text.seek(0)
    names = ", ".join(f'"{name}"' for name in columns)
    cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", text)


def _cell(value: Any) -> str:
    """Return a value in COPY's text format (PostgreSQL manual, COPY, Text Format)."""
    if value is None:
        return r"\N"
    text = str(value).replace("\0", "")
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")
