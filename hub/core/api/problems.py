"""Every refused API request is answered as application/problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import DataError, IntegrityError, InternalError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response

from hub.core.database import connection_lost
from hub.core.errors import (
    Conflict,
    HubError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    TooLarge,
    Unavailable,
)

log = structlog.get_logger(__name__)
PROBLEM_JSON = "application/problem+json"


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """Translate an exception of a view; None lets an unexpected one become a logged 500."""
    problem = as_hub_error(error)
    if problem is None:
        return None
    log.info("request.refused", code=problem.code, status=problem.http_status)
    response = Response(problem.as_problem(), status=problem.http_status, content_type=PROBLEM_JSON)
    if problem.http_status == status.HTTP_401_UNAUTHORIZED:
        response["WWW-Authenticate"] = "Token"
    if problem.retry_after_s is not None:
        response["Retry-After"] = str(problem.retry_after_s)
    return response


def as_hub_error(error: Exception) -> HubError | None:
    """Return the HubError that says the same as `error`, or None where it is not an expected failure."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, (exceptions.NotAuthenticated, exceptions.AuthenticationFailed)):
        return NotAuthenticated("Send a valid token as “Authorization: Token …”, or log in.")
    if isinstance(error, (Http404, exceptions.NotFound)):
        return NotFound("There is nothing at this address that you may see. Check the id and your role.")
    if isinstance(error, (PermissionDenied, exceptions.PermissionDenied)):
        return NotAllowed(_text(error) or "Your role does not allow this.")
    if isinstance(error, exceptions.ValidationError):
        return InvalidInput("Some fields are not valid; see errors.", errors=_field_errors(error.detail))
    if isinstance(error, RequestDataTooBig):
        return TooLarge("The request is larger than allowed.")
    if isinstance(error, exceptions.APIException):
        problem = HubError(_text(error), code=getattr(error, "default_code", "error"))
        problem.http_status = error.status_code
        # Some of the framework's sentences are templates: 'Method "{method}" not allowed.'
        words = str(error.default_detail)
        problem.title = HTTPStatus(error.status_code).phrase if "{" in words else words
        return problem
    if connection_lost(error):
        return Unavailable(
            "The database cannot be reached now. Nothing was changed; try again in a few seconds."
        )
    return _guard_refusal(error)


def _guard_refusal(error: Exception) -> HubError | None:
    """A database guard (locked row, locked trial) speaks in the same words as the service."""
    if isinstance(error, InternalError) and "hub:" in str(error):
        return Conflict(str(error).split("hub:", 1)[1].splitlines()[0].strip())
    if isinstance(error, IntegrityError) and (rule := _broken_rule(error)):
        return Conflict(f"The database keeps to this rule, and nothing was changed: {rule}.")
    if isinstance(error, DataError):
        return InvalidInput("A value cannot be stored: a number out of range, or text with a NUL character.")
    return None


def _broken_rule(error: IntegrityError) -> str:
    """Return the rule that a constraint states: constraints of the hub are named as sentences."""
    diagnostics = getattr(error.__cause__, "diag", None)
    return str(getattr(diagnostics, "constraint_name", "") or "").replace("_", " ")


def _text(error: Exception) -> str:
    return str(getattr(error, "detail", "") or error)


def _field_errors(detail: Any, path: str = "") -> list[dict[str, str]]:
    if isinstance(detail, dict):
        return [
            item for key, value in detail.items() for item in _field_errors(value, f"{path}.{key}".strip("."))
        ]
    if isinstance(detail, list):
        found: list[dict[str, str]] = []
        for index, value in enumerate(detail):
            nested = isinstance(value, (dict, list))
            found += _field_errors(value, f"{path}.{index}" if nested else path)
        return found
    return [{"field": path or "non_field_errors", "message": str(detail)}]
