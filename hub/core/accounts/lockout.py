"""What a locked-out login sees, in page and API."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from hub.core.errors import HubError


class LockedOut(HubError):
    code = "locked_out"
    title = "Too many failed logins"
    http_status = 429


def refuse_locked_out(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    error = LockedOut(
        "This account is locked after five failed logins. Wait 15 minutes, or ask the administrator."
    )
    if request.path.startswith("/api/"):
        return JsonResponse(
            error.as_problem(), status=error.http_status, content_type="application/problem+json"
        )
    return render(request, "problem.html", {"problem": error.as_problem()}, status=error.http_status)
