"""Who takes part in a trial, and in which role."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from hub.core.csv_export import csv_response
from sites_app.models import LockState, Membership, Role, Site, Trial
from sites_app.permissions import ADMINISTRATORS, can_administer
from sites_app.services.membership import add_membership
from sites_app.services.people import end_membership
from sites_app.views.navigation import Entry
from sites_app.views.trial_pages import done, get_visible, trial_page

# A sponsor must not learn who works at a site; sites see their own people alone.
READERS = frozenset({Role.TRIAL_ADMINISTRATOR, Role.DATA_MANAGER, Role.MONITOR, Role.AUDITOR})
PEOPLE_ENTRY = Entry("People", "person", "trial-people", READERS, order=90)
_COLUMNS = ("username", "name", "role", "site", "active", "since")


@trial_page(roles=READERS)
def people(request: HttpRequest, trial: Trial) -> HttpResponse:
    rows = Membership.objects.visible_to(request.user).filter(trial=trial).select_related("user", "site")
    rows = rows.order_by("-is_active", "user__username", "role")
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-people", _COLUMNS, [_row(item) for item in rows])
    context = {
        "memberships": rows,
        "roles_offered": Role.choices,
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
        "may_administer": can_administer(request.user, trial.pk) and trial.lock_state != LockState.LOCKED,
    }
    return render(request, "people/people.html", context)


@require_POST
@trial_page(roles=ADMINISTRATORS)
def add(request: HttpRequest, trial: Trial) -> HttpResponse:
    username, role, site = (request.POST.get(name, "") for name in ("username", "role", "site"))
    row = add_membership(actor=request.user, trial=trial, username=username, role=role, site_code=site)
    return done(request, f"{row.user} is now {row.get_role_display()}.", "trial-people", trial.code)


@require_POST
@trial_page(roles=ADMINISTRATORS)
def end(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = get_visible(Membership.objects.select_related("user"), request.user, pk=pk, trial=trial)
    end_membership(actor=request.user, membership=row)
    return done(request, f"{row.user} is no longer {row.get_role_display()}.", "trial-people", trial.code)


def _row(item: Membership) -> list[object]:
    site = item.site.code if item.site else "all sites"
    return [
        item.user.username,
        str(item.user),
        item.get_role_display(),
        site,
        item.is_active,
        item.created_at.isoformat(),
    ]
