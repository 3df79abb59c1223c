"""Error pages and error answers outside of views, in the same words."""

import sys
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from hub.core.api.problems import PROBLEM_JSON, as_hub_error
from hub.core.database import connection_lost
from hub.core.errors import HubError, NotAllowed, NotFound


def answer_problem(request: HttpRequest, error: HubError) -> HttpResponse:
    """Answer a refusal as a problem document to programs, as a page to people, as a part of one to htmx."""
    problem = error.as_problem()
    if request.path.startswith(("/api/", "/health/")):
        response: HttpResponse = JsonResponse(problem, status=error.http_status, content_type=PROBLEM_JSON)
    else:
        template = "_problem.html" if getattr(request, "htmx", False) else "problem.html"
        response = render(request, template, {"problem": problem}, status=error.http_status)
    if error.retry_after_s is not None:
        response["Retry-After"] = str(error.retry_after_s)
    return response


def not_found(request: HttpRequest, exception: Any = None) -> HttpResponse:
    return answer_problem(request, NotFound("There is nothing at this address that you may see."))


def not_allowed(request: HttpRequest, exception: Any = None) -> HttpResponse:
    return answer_problem(request, NotAllowed("Your role does not allow this."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what nothing else has: 503 where the database went away before the view, else 500."""
    raised = sys.exc_info()[1]
    if isinstance(raised, Exception) and connection_lost(raised) and (lost := as_hub_error(raised)):
        # The page must not ask the database who is looking at it.
        request.user = AnonymousUser()
        return answer_problem(request, lost)
    error = HubError(
        "Something failed in the hub. Nothing was half-written. The log has the details under the request id"
        " in the X-Request-ID header; tell the administrator.",
        code="internal_error",
    )
    error.http_status = 500
    return answer_problem(request, error)
