"""Where a trial starts: for a site what to do next, for others the dashboard."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from qc_app.selectors.next_steps import what_next
from sites_app.models import Role, Submission, Trial
from sites_app.permissions import roles_in
from sites_app.selectors.pages import UNDER_WAY, sites_to_send_for
from sites_app.views.trial_pages import trial_page


@trial_page()
def trial_home(request: HttpRequest, trial: Trial) -> HttpResponse:
    if Role.SITE_COORDINATOR not in roles_in(request.user, trial.pk):
        return redirect("trial-dashboard", trial_code=trial.code)
    work = what_next(request.user, trial)
    submissions = Submission.objects.visible_to(request.user).filter(trial=trial, state__in=UNDER_WAY)
    context = {
        "work": work,
        "under_way": submissions.select_related("subject", "visit__definition")[:20],
        "may_send": bool(sites_to_send_for(request.user, trial)),
    }
    return render(request, "qc/home.html", context)
