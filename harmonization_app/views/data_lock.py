"""The data lock: checklist, freeze, lock with a signature, manifest, history."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_POST

from harmonization_app.models import DataLock
from harmonization_app.selectors.data_lock import anchors_of, lock_history, visible_lock
from harmonization_app.services import data_lock as services
from harmonization_app.services.lock_checklist import checklist
from harmonization_app.views.exports import exports_shown
from harmonization_app.views.pages import harmonization_page, may, signature_of
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput, NotFound
from sites_app.models import Trial
from sites_app.views.trial_pages import done

# Where each condition is met; a page that another app does not offer has no link.
_PAGES = {
    "submissions_finished": ("submissions", ""),
    "series_checked": ("submissions", ""),
    "deviations_closed": ("deviations", "?state=open"),
    "queries_closed": ("queries", "?state=open"),
    "quarantine_decided": ("submissions", ""),
    "no_drafts": ("plans", "?state=draft"),
    "no_tried_drafts": ("plans", "?state=draft"),
    "protocol_locked": ("trial-protocol", ""),
    "qc_profile_locked": ("trial-qc-profile", ""),
    "primary_run": ("runs", "?kind=primary"),
}


@harmonization_page
def data_lock(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = visible_lock(request.user, trial)
    items = checklist(trial)
    context = {
        "lock": row,
        "state": row.state if row else "open",
        "items": [{"item": item, "url": _page_of(item.code, trial)} for item in items],
        "unmet": sum(item.blocking and not item.met for item in items),
        "history": lock_history(row) if row else [],
        "anchors": anchors_of(row) if row and row.state == "locked" else [],
        "anchor_file": settings.HUB_ANCHOR_FILE.name,
        "may": may(request, trial),
        **exports_shown(request, trial),
    }
    return render(request, "harmonization/data_lock.html", context)


@require_POST
@harmonization_page
def freeze(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = services.open_data_lock(actor=request.user, trial=trial)
    services.freeze(actor=request.user, data_lock=row, reason=request.POST.get("reason", ""))
    sentence = "The trial is frozen: no new data from now on. Deviations and queries go on."
    return done(request, sentence, "data-lock", trial.code)


@require_POST
@harmonization_page
def unfreeze(request: HttpRequest, trial: Trial) -> HttpResponse:
    services.unfreeze(
        actor=request.user, data_lock=_get(request, trial), reason=request.POST.get("reason", "")
    )
    return done(request, "The freeze has ended: new data are accepted again.", "data-lock", trial.code)


@require_POST
@harmonization_page
def lock(request: HttpRequest, trial: Trial) -> HttpResponse:
    if request.POST.get("confirmation", "").strip() != trial.code:
        raise InvalidInput(
            f"Nothing was locked. To confirm, type the code of the trial, {trial.code}, exactly.",
            errors=[{"field": "confirmation", "message": "is not the code of the trial"}],
        )
    services.lock_data(actor=request.user, data_lock=_get(request, trial), **signature_of(request))
    sentence = "The data are locked. Nothing of this trial changes any more."
    return done(request, sentence, "data-lock", trial.code)


@harmonization_page
def manifest(request: HttpRequest, trial: Trial) -> HttpResponse:
    content = canonical_json(services.read_manifest(_get(request, trial)))
    response = HttpResponse(content, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="manifest-{trial.code}.json"'
    return response


def _get(request: HttpRequest, trial: Trial) -> DataLock:
    row = visible_lock(request.user, trial)
    if row is None:
        raise NotFound("The data lock of this trial has not begun: freeze the trial first.")
    return row


def _page_of(code: str, trial: Trial) -> str:
    name, query = _PAGES.get(code, ("", ""))
    if code == "jobs_finished":
        return reverse("jobs")
    try:
        return reverse(name, args=[trial.code]) + query if name else ""
    except NoReverseMatch:
        return ""
