"""The statistician's way through a trial, as steps with their state."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from harmonization_app.models import AlgorithmVersion
from harmonization_app.selectors.feature_set import visible_feature_sets
from harmonization_app.selectors.overview import steps
from harmonization_app.selectors.plan import visible_plans
from harmonization_app.selectors.run import visible_runs
from harmonization_app.views.pages import harmonization_page, may
from sites_app.models import Trial

_SHOWN = 5


@harmonization_page
def home(request: HttpRequest, trial: Trial) -> HttpResponse:
    context = {
        "steps": steps(request.user, trial),
        "feature_sets": visible_feature_sets(request.user, trial)[:_SHOWN],
        "versions": AlgorithmVersion.objects.all()[:_SHOWN],
        "plans": visible_plans(request.user, trial)[:_SHOWN],
        "runs": visible_runs(request.user, trial)[:_SHOWN],
        "may": may(request, trial),
    }
    return render(request, "harmonization/home.html", context)
