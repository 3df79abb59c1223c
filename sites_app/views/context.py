"""What every page's frame needs: whose page it is and where it can go."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from sites_app.models import Trial
from sites_app.permissions import roles_anywhere, roles_in
from sites_app.selectors.reach import reach_of
from sites_app.views.navigation import entries_for, hub_entries_for


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Return `trial`, `roles` and the groups of the navigation."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or getattr(request, "htmx", False):
        return {}
    trials = list(Trial.objects.visible_to(user))
    match = request.resolver_match
    code = match.kwargs.get("trial_code") if match else None
    trial = next((item for item in trials if item.code == code), None)
    shown = trial or (trials[0] if len(trials) == 1 else None)
    roles = roles_in(user, shown.pk) if shown else frozenset()
    groups = [_trial_group(request, shown, roles)] if shown else []
    if len(trials) > 1:
        entries = [
            _entry(request, item.code, "grid", reverse("trial-home", args=[item.code])) for item in trials
        ]
        groups.append({"title": "Trials", "entries": entries})
    groups.append(_hub_group(request))
    return {"trial": shown, "roles": roles, "navigation": groups}


def _trial_group(request: HttpRequest, trial: Trial, roles: frozenset[str]) -> dict[str, Any]:
    entries = [
        _entry(request, entry.title, entry.icon, reverse(entry.url_name, args=[trial.code]))
        for entry in entries_for(roles)
    ]
    return {"title": trial.code, "entries": entries}


def _hub_group(request: HttpRequest) -> dict[str, Any]:
    pages = [("Jobs", "progress", "jobs"), ("API", "list", "api-docs")]
    if request.user.is_superuser or reach_of(request.user).audited:
        pages.insert(1, ("Audit trail", "shield", "audit"))
    own = [
        (entry.title, entry.icon, entry.url_name) for entry in hub_entries_for(roles_anywhere(request.user))
    ]
    return {
        "title": "Hub",
        "entries": [_entry(request, title, icon, reverse(name)) for title, icon, name in own + pages],
    }


def _entry(request: HttpRequest, title: str, icon: str, url: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "url": url, "current": request.path == url}
