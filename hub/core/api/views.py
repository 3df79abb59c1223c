"""What every API view of the hub shares: deny by default, ETag on details, Idempotency-Key on POST."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import structlog
from django.core.files.uploadedfile import UploadedFile
from django.db import Error as DatabaseFailure
from django.db import IntegrityError, connection, transaction
from django.utils.datastructures import MultiValueDict
from django.utils.http import parse_etags
from rest_framework import viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from hub.core.api.idempotency_models import IdempotencyRecord
from hub.core.api.permissions import LoggedIn
from hub.core.api.problems import PROBLEM_JSON
from hub.core.canonical import digest
from hub.core.database import connection_lost
from hub.core.errors import Conflict, InvalidInput

log = structlog.get_logger(__name__)


class HubViewSet(viewsets.GenericViewSet):
    """Base of all resources. Subclasses give `get_queryset()` as `Model.objects.visible_to(user)`."""

    permission_classes = (LoggedIn,)
    lookup_value_converter = "uuid"
    idempotent_actions: tuple[str, ...] = ("create",)

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().dispatch(request, *args, **kwargs)
        if self._is_detail(request, response):
            tag = '"' + hashlib.sha256(response.rendered_content).hexdigest()[:32] + '"'
            response["ETag"] = tag
            if _names(request.headers.get("If-None-Match", ""), tag):
                not_modified = Response(status=304, headers={"ETag": tag})
                not_modified.accepted_renderer = response.accepted_renderer
                not_modified.accepted_media_type = response.accepted_media_type
                not_modified.renderer_context = response.renderer_context
                return not_modified
        return response

    def _is_detail(self, request: Any, response: Any) -> bool:
        return (
            request.method == "GET"
            and getattr(self, "detail", False)
            and isinstance(response, Response)
            and response.status_code == 200
        )

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = request.headers.get("Idempotency-Key")
        if request.method == "POST" and key and self.action in self.idempotent_actions:
            self._idempotency = _reserve(request, key)
            if self._idempotency.status is not None:
                raise _Repeated(self._idempotency)

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, _Repeated):
            return Response(
                exc.record.body,
                status=exc.record.status,
                headers={"Idempotency-Replayed": "true"},
                content_type=PROBLEM_JSON if exc.record.status >= 400 else None,
            )
        try:
            return super().handle_exception(exc)
        except Exception:
            self._forget_reservation()
            raise

    def _forget_reservation(self) -> None:
        """Give the key free where the request failed in a way that answers nothing."""
        record: IdempotencyRecord | None = getattr(self, "_idempotency", None)
        if record is not None and record.status is None:
            _settle_safely(record, Response(status=500))

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        record: IdempotencyRecord | None = getattr(self, "_idempotency", None)
        if record is not None and record.status is None:
            _settle_safely(record, response)
        return response


def _names(condition: str, tag: str) -> bool:
    """Return whether If-None-Match holds this tag: one of several, weak or not, or any (RFC 9110, 13.1.2)."""
    return any(given == "*" or given.removeprefix("W/") == tag for given in parse_etags(condition))


def _settle_safely(record: IdempotencyRecord, response: Response) -> None:
    """Keep the answer under its key. The request is answered as it ended, also where the database is lost by now."""
    try:
        _settle(record, response)
    except DatabaseFailure as error:
        if not connection_lost(error):
            raise
        connection.close()
        try:
            _settle(record, response)
        except DatabaseFailure as again:
            log.warning("idempotency.not_settled", error=type(again).__name__)


def _settle(record: IdempotencyRecord, response: Response) -> None:
    if response.status_code >= 500:
        IdempotencyRecord.objects.filter(pk=record.pk).delete()
        return
    record.status, record.body = response.status_code, _plain(response)
    record.save(update_fields=["status", "body"])


class _Repeated(Exception):
    def __init__(self, record: IdempotencyRecord) -> None:
        self.record = record


def _reserve(request: Request, key: str) -> IdempotencyRecord:
    if len(key) > 200:
        raise InvalidInput("Idempotency-Key has at most 200 characters.")
    request_digest = digest(_comparable(request.data))
    try:
        with transaction.atomic():
            return IdempotencyRecord.objects.create(
                user=request.user, key=key, path=request.path, request_digest=request_digest
            )
    except IntegrityError:
        record = IdempotencyRecord.objects.get(user=request.user, key=key, path=request.path)
    if record.request_digest != request_digest:
        raise Conflict("This Idempotency-Key was used for another request. Use a new key for a new request.")
    if record.status is None:
        raise Conflict("The first request with this Idempotency-Key is still under way. Try again shortly.")
    return record


def _comparable(data: Any) -> Any:
    """Return a request's data as JSON can hold it; a file of a form stands there by its name and SHA-256."""
    if isinstance(data, MultiValueDict):
        return {name: [_comparable(value) for value in data.getlist(name)] for name in data}
    if isinstance(data, UploadedFile):
        content = hashlib.sha256()
        for piece in data.chunks():
            content.update(piece)
        data.seek(0)
        return {"file": data.name, "sha256": content.hexdigest()}
    return data if isinstance(data, dict) else str(data)


def _plain(response: Response) -> Any:
    response.render()
    return json.loads(response.rendered_content or b"null")
