"""Request bodies read as streams, and answers that are streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict, StreamingHttpResponse
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from sites_app.services.upload import RequestBody, file_name_in


class RawBodyParser(BaseParser):
    """Leaves the body unread: the session's CSRF check asks for form fields before the view reads the stream."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> QueryDict:
        return QueryDict("")


class ZipRenderer(BaseRenderer):
    """Lets a client ask for application/zip; a refusal is still written as JSON."""

    media_type = "application/zip"
    format = "zip"
    charset = None

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        return json.dumps(data).encode()


def request_body(request: Request) -> RequestBody:
    """Return the unread body of a request."""
    length = request.META.get("CONTENT_LENGTH") or ""
    return RequestBody(
        content_type=request.META.get("CONTENT_TYPE") or "",
        length=int(length) if str(length).isdigit() else None,
        stream=request._request,
        name=file_name_in(request.headers.get("Content-Disposition", "")),
    )


def streamed(
    request: Request | HttpRequest, pieces: Iterator[bytes], name: str, content_type: str = "application/zip"
) -> StreamingHttpResponse:
    """Return pieces as a download, one in memory at a time under WSGI and ASGI alike."""
    own = request._request if isinstance(request, Request) else request
    body = _asynchronous(pieces) if isinstance(own, ASGIRequest) else pieces
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


async def _asynchronous(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    read = sync_to_async(next, thread_sensitive=False)
    while (piece := await read(pieces, None)) is not None:
        yield piece
