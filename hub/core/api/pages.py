"""Pages show the same sentence for a refused request as the API does."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from hub.core.api.problems import as_hub_error
from hub.core.error_pages import answer_problem
from hub.core.errors import NotAuthenticated


class PageErrorMiddleware:
    """Answer expected failures of page views, with the same headers as the API."""

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
        return answer_problem(request, problem)
