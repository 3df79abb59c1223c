"""Refuses request bodies by their headers, before a byte of them is read."""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

from hub.core.errors import HubError, InvalidInput, StorageFull, TooLarge, UnsupportedContent

Scope = MutableMapping[str, Any]
# Images, and the tables and matrices of measurements.
_BULK_SUFFIXES = ("/files/", "/uploads/", "/feature-sets/", "/feature-sets/new/")


class BodyGuard:
    """ASGI wrapper: limits on length, no content encoding, one length header only; 507 for a full disk."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "http":
            error = _refusal(scope)
            if error is not None:
                await _send_problem(send, error)
                return
        elif scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
            return
        try:
            await self.application(scope, receive, send)
        except OSError as error:
            # Django writes the body to a temporary file before any view runs; nothing is answered yet.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            await _send_problem(
                send, StorageFull("The hub's disk is full. Nothing was stored; try again later.")
            )


def _refusal(scope: Scope) -> HubError | None:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    names = {name for name, _ in scope["headers"]}
    if len(lengths) > 1 or (lengths and b"transfer-encoding" in names):
        return InvalidInput("The request names its length twice. Send either Content-Length or chunks.")
    if b"content-encoding" in names:
        return UnsupportedContent("Content-Encoding is not accepted. Send the body as it is.")
    if lengths and not lengths[0].isdigit():
        return InvalidInput("Content-Length is not a number.")
    bulk = scope["path"].endswith(_BULK_SUFFIXES)
    limit = settings.HUB_UPLOAD_LIMIT_BYTES if bulk else settings.HUB_REQUEST_LIMIT_BYTES
    if lengths and int(lengths[0]) > limit:
        return TooLarge(
            f"The body has {int(lengths[0]):,} bytes; at most {limit:,} are accepted. Send it in parts."
        )
    return None


async def _send_problem(send: Callable, error: HubError) -> None:
    body = json.dumps(error.as_problem()).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve_lifespan(receive: Callable, send: Callable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
