"""Pages show the same sentence for a refused request as the API does."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from hub.core.api.problems import as_hub_error
from hub.core.errors import NotAuthenticated


class PageErrorMiddleware:
    """Render expected failures of page views as a page (or a fragment, for htmx) with the problem."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        problem = as_hub_error(error)
        if problem is None or request.path.startswith("/api/"):
            return None
        if isinstance(problem, NotAuthenticated):
            return redirect("account_login")
        template = "_problem.html" if getattr(request, "htmx", False) else "problem.html"
        return render(request, template, {"problem": problem.as_problem()}, status=problem.http_status)
