"""Expected failures: one base error that page, API and log render in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class HubError(Exception):
    """An expected failure with a code for programs and a sentence for people.

    `detail` says what failed, where, why and what to do. `errors` lists the parts of the input at fault,
    each {"field": ..., "message": ...}. `retry_after_s` says when the same request may succeed, where that is known.
    """

    code = "error"
    title = "The request could not be carried out"
    http_status = 400
    retry_after_s: int | None = None

    def __init__(
        self, detail: str = "", *, errors: Sequence[Mapping[str, Any]] = (), code: str | None = None
    ) -> None:
        self.detail = detail or self.title
        self.errors = [dict(error) for error in errors]
        if code is not None:
            self.code = code
        super().__init__(self.detail)

    def as_problem(self) -> dict[str, Any]:
        """Return the RFC 9457 problem document."""
        problem: dict[str, Any] = {
            "type": f"urn:hub:problem:{self.code}",
            "title": self.title,
            "status": self.http_status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            problem["errors"] = self.errors
        return problem


class InvalidInput(HubError):
    code = "invalid_input"
    title = "The input is not valid"
    http_status = 400


class NotAuthenticated(HubError):
    code = "not_authenticated"
    title = "Log in or send a token"
    http_status = 401


class NotAllowed(HubError):
    code = "not_allowed"
    title = "Your role does not allow this"
    http_status = 403


class NotFound(HubError):
    code = "not_found"
    title = "There is nothing here that you may see"
    http_status = 404


class Conflict(HubError):
    code = "conflict"
    title = "The present state does not allow this"
    http_status = 409


class TooLarge(HubError):
    code = "too_large"
    title = "The content is larger than allowed"
    http_status = 413


class UnsupportedContent(HubError):
    code = "unsupported_content"
    title = "This kind of content is not accepted here"
    http_status = 415


class Unavailable(HubError):
    code = "unavailable"
    title = "A part of the hub is not available now; try again"
    http_status = 503
    retry_after_s = 5


class StorageFull(HubError):
    code = "storage_full"
    title = "There is no room left to store this"
    http_status = 507
