"""What pages of a trial share: login, the trial by its code, and the roles of who asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from hub.core.errors import NotAllowed, NotFound
from sites_app.models import Role, Trial
from sites_app.permissions import roles_in

EVERY_ROLE = frozenset(Role.values)
TRIAL_WIDE_ROLES = EVERY_ROLE - {Role.SITE_COORDINATOR}


def trial_page(*, roles: frozenset[str] = EVERY_ROLE) -> Callable[..., Callable[..., HttpResponse]]:
    """Turn `view(request, trial, ...)` into a page at an address with `trial_code`.

    Out of the user's scope it is not found; visible but for other roles it is refused.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @login_required
        @wraps(view)
        def page(request: HttpRequest, trial_code: str, **kwargs: Any) -> HttpResponse:
            trial = Trial.objects.visible_to(request.user).filter(code=trial_code).first()
            if trial is None:
                raise NotFound("There is no such trial, or you have no part in it.")
            if not roles_in(request.user, trial.pk) & roles:
                labels = ", ".join(sorted(Role(role).label for role in roles))
                raise NotAllowed(f"This page is for: {labels}.")
            return view(request, trial, **kwargs)

        return page

    return decorate


def get_visible(queryset: Any, user: Any, **lookup: Any) -> Any:
    """Return the one row that `user` may see; raises NotFound alike for absent and out of scope."""
    row = queryset.visible_to(user).filter(**lookup).first()
    if row is None:
        raise NotFound("There is nothing at this address that you may see.")
    return row


def done(request: HttpRequest, message: str, url_name: str, *arguments: Any) -> HttpResponse:
    """Say that an act succeeded and go on to a page, for a form sent by the browser or by htmx."""
    messages.success(request, message)
    address = reverse(url_name, args=arguments)
    return HttpResponseClientRedirect(address) if getattr(request, "htmx", False) else redirect(address)
