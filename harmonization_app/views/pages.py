"""What the pages of this app share: who may open them, forms' values, the fragments of htmx."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from harmonization_app.models import FeatureSet, HarmonizationPlan
from harmonization_app.permissions import ANALYSTS, LOCKERS, READERS
from harmonization_app.selectors.feature_set import visible_feature_sets
from hub.core.accounts.second_factor import has_second_factor
from hub.core.errors import InvalidInput, NotAllowed
from sites_app.models import Membership, Trial
from sites_app.permissions import roles_in
from sites_app.views.trial_pages import trial_page

PAGE = 50
# Up to so many features are offered in a list; from more of them one types a part of the name.
LISTED = 300


def harmonization_page(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Make `view(request, trial, ...)` a page for the roles that read harmonization over the whole trial."""

    @trial_page(roles=READERS)
    @wraps(view)
    def page(request: HttpRequest, trial: Trial, **kwargs: Any) -> HttpResponse:
        user: Any = request.user
        whole = Membership.objects.filter(user=user, trial=trial, site=None, role__in=READERS, is_active=True)
        if not user.is_superuser and not whole.exists():
            raise NotAllowed("This page shows all sites; your part in this trial is limited to some of them.")
        return view(request, trial, **kwargs)

    return page


def may(request: HttpRequest, trial: Trial) -> dict[str, bool]:
    """Return what the page offers to this user; the services decide."""
    roles = roles_in(request.user, trial.pk)
    return {
        "analyse": bool(roles & ANALYSTS),
        "lock": bool(roles & LOCKERS),
        "otp": has_second_factor(request.user),
    }


def picker(request: HttpRequest, feature_set: FeatureSet, chosen: str) -> dict[str, Any]:
    """Return what `_feature_picker.html` needs to choose one feature of few or of many."""
    names = [column["name"] for column in feature_set.columns[:LISTED]]
    return {
        "names": names if feature_set.column_count <= LISTED else [],
        "chosen": chosen,
        "suggestions": reverse("feature-set-features", args=[feature_set.trial.code, feature_set.pk]),
        "count": feature_set.column_count,
    }


def offered_feature_sets(
    request: HttpRequest, trial: Trial, plan: HarmonizationPlan | None = None
) -> dict[str, Any]:
    """Return the newest feature sets to choose from, and which is chosen.

    Chosen is that of ?feature_set=, else that of the last run of `plan`, else the newest. It is offered however old it
    is; one that cannot be seen is as if it were not named.
    """
    rows = visible_feature_sets(request.user, trial)
    offered = list(rows[:PAGE])
    last = plan.runs.first() if plan else None
    for key in (as_uuid(request.GET.get("feature_set")), last and last.feature_set_id):
        chosen = rows.filter(pk=key).first() if key else None
        if chosen is not None:
            known = any(row.pk == chosen.pk for row in offered)
            return {"feature_sets": offered if known else [*offered, chosen], "chosen_set": chosen}
    return {"feature_sets": offered, "chosen_set": next(iter(offered), None)}


def as_uuid(text: Any) -> UUID | None:
    """Return the id that `text` is, or None."""
    try:
        return UUID(str(text))
    except ValueError:
        return None


def go_to(request: HttpRequest, address: str) -> HttpResponse:
    """Go on to a page of the hub, for a form sent by the browser or by htmx."""
    return HttpResponseClientRedirect(address) if getattr(request, "htmx", False) else redirect(address)


def signature_of(request: HttpRequest) -> dict[str, str]:
    """Return what the signature form sent; the password is not trimmed."""
    return {
        "password": request.POST.get("password", ""),
        "meaning": request.POST.get("meaning", "").strip(),
        "otp": request.POST.get("otp", "").strip(),
    }


def json_object(text: str, name: str) -> dict[str, Any]:
    """Return the JSON object in a form's field. Raises InvalidInput saying where the text is at fault."""
    try:
        value = json.loads(text or "null")
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{name} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}.",
            errors=[{"field": f"line {error.lineno}, column {error.colno}", "message": error.msg}],
        ) from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be a JSON object.")
    return value
