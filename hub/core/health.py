"""Liveness and readiness: database, Redis, storage, and a worker that answers."""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery import current_app
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from redis import Redis

from hub.core.storage.blobs import root

log = structlog.get_logger(__name__)
QUEUES = ("ingest", "check", "harmonize")


def live(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "live"})


def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 when every part works, else 503 with the part that fails and why."""
    parts = {}
    for name, check in (
        ("database", _database),
        ("redis", _redis),
        ("storage", _storage),
        ("workers", _workers),
    ):
        try:
            check()
            parts[name] = "ok"
        except Exception as error:
            log.warning("health.failed", part=name, error=type(error).__name__)
            parts[name] = (
                f"failed: {error}" if isinstance(error, RuntimeError) else f"failed: {type(error).__name__}"
            )
    failing = [name for name, state in parts.items() if state != "ok"]
    body: dict[str, Any] = {"status": "not ready" if failing else "ready", "parts": parts}
    return JsonResponse(body, status=503 if failing else 200)


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_migrations")


def _redis() -> None:
    Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2).ping()


def _storage() -> None:
    root("spool")  # where uploads land must be there, though the probe, if killed, must not be taken for one
    probe = root("health") / str(os.getpid())
    probe.write_bytes(b"probe")
    probe.unlink()


def _workers() -> None:
    replies = current_app.control.inspect(timeout=0.7).active_queues() or {}
    served = {queue["name"] for queues in replies.values() for queue in queues}
    missing = [queue for queue in QUEUES if queue not in served]
    if missing:
        raise RuntimeError(f"no worker serves {', '.join(missing)}")
