"""Export packages on the page of the data lock: ask for one, follow it, download it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from harmonization_app.selectors.export import exports_of
from harmonization_app.services import export as services
from harmonization_app.views.pages import harmonization_page
from sites_app.models import Trial
from sites_app.views.trial_pages import done


@require_POST
@harmonization_page
def export_start(request: HttpRequest, trial: Trial) -> HttpResponse:
    with_images = request.POST.get("include_images") == "yes"
    services.start_export(actor=request.user, trial=trial, include_images=with_images)
    sentence = "The export is queued. It is listed here with its progress."
    return done(request, sentence, "data-lock", trial.code)


@harmonization_page
def export_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    """The trial's exports, renewed while one is being made. Answers a fragment."""
    return render(request, "harmonization/_exports.html", {"trial": trial, **exports_shown(request, trial)})


def exports_shown(request: HttpRequest, trial: Trial) -> dict[str, Any]:
    rows = exports_of(request.user, trial)
    return {
        "exports": rows,
        "exports_waiting": any(not row.export.is_final for row in rows),
        "may_export": services.may_export(request.user, trial),
    }
