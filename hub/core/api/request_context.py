"""Who asked and from where: kept for the length of a request, for audit and logs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse

_request: ContextVar[HttpRequest | None] = ContextVar("hub_request", default=None)
_origin: ContextVar[dict[str, Any] | None] = ContextVar("hub_origin", default=None)


class RequestContextMiddleware:
    """Give each request an id, kept in logs, audit and the X-Request-ID header."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = uuid.uuid4().hex
        channel = "api" if request.path.startswith("/api/") else "page"
        tokens = (
            _request.set(request),
            _origin.set({"via": channel, "request": request_id, "ip": request.META.get("REMOTE_ADDR") or ""}),
        )
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = self.get_response(request)
        finally:
            _request.reset(tokens[0])
            _origin.reset(tokens[1])
            structlog.contextvars.clear_contextvars()
        response["X-Request-ID"] = request_id
        return response


@contextmanager
def origin(via: str, **facts: Any) -> Any:
    """Name the origin of what happens outside a request, for example a job or a command."""
    token = _origin.set({"via": via, **facts})
    try:
        yield
    finally:
        _origin.reset(token)


def current_request() -> HttpRequest | None:
    return _request.get()


def current_origin() -> dict[str, Any]:
    return {**(_origin.get() or {"via": "command"}), "version": settings.VERSION}
