"""Error pages and error answers outside of views, in the same words."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from hub.core.errors import HubError, NotAllowed, NotFound


def _answer(request: HttpRequest, error: HubError) -> HttpResponse:
    problem = error.as_problem()
    if request.path.startswith(("/api/", "/health/")):
        return JsonResponse(problem, status=error.http_status, content_type="application/problem+json")
    return render(request, "problem.html", {"problem": problem}, status=error.http_status)


def not_found(request: HttpRequest, exception: Any = None) -> HttpResponse:
    return _answer(request, NotFound("There is nothing at this address that you may see."))


def not_allowed(request: HttpRequest, exception: Any = None) -> HttpResponse:
    return _answer(request, NotAllowed("Your role does not allow this."))


def server_error(request: HttpRequest) -> HttpResponse:
    error = HubError(
        "Something failed in the hub. Nothing was half-written. The log has the details under the request id"
        " in the X-Request-ID header; tell the administrator.",
        code="internal_error",
    )
    error.http_status = 500
    return _answer(request, error)
