"""The QC profile for people: read its bounds, change its draft, try it out, lock it, amend it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from qc_app.permissions import VERSION_DRAFTERS, VERSION_LOCKERS
from qc_app.selectors.documents import profile_changes, read_profile
from qc_app.services import qc_profile as services
from qc_app.services.qc_profile import QC_PROFILE
from qc_app.views.versions import (
    VersionPages,
    get_draft,
    get_in_force,
    get_read_draft,
    posted_document,
    signing,
    version_context,
)
from sites_app.models import Trial
from sites_app.views.trial_pages import done, trial_page

PAGES = VersionPages(QC_PROFILE, "QC profile", "trial-qc-profile")
DRAFT_PAGE = "trial-qc-profile-draft"


@trial_page()
def qc_profile(request: HttpRequest, trial: Trial) -> HttpResponse:
    return _page(request, trial, drafting=False)


@trial_page()
def draft(request: HttpRequest, trial: Trial) -> HttpResponse:
    return _page(request, trial, drafting=True)


def _page(request: HttpRequest, trial: Trial, *, drafting: bool) -> HttpResponse:
    context = version_context(PAGES, request, trial, drafting=drafting)
    shown = context["shown"]
    context |= {
        "sections": read_profile(shown) if shown is not None else (),
        "changes": profile_changes(shown) if context["shows_draft"] else [],
    }
    return render(request, "qc/qc_profile.html", context)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def create(request: HttpRequest, trial: Trial) -> HttpResponse:
    """Start the first draft from the profile that the hub ships."""
    row = services.create_draft(actor=request.user, trial=trial)
    return done(request, f"Draft version {row.version} is started.", DRAFT_PAGE, trial.code)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def save(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = get_read_draft(PAGES, request, trial)
    document = posted_document(request)
    services.update_draft(actor=request.user, row=row, document=document, title=request.POST.get("title"))
    return done(request, "The draft is saved.", DRAFT_PAGE, trial.code)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def discard(request: HttpRequest, trial: Trial) -> HttpResponse:
    services.discard_draft(actor=request.user, row=get_read_draft(PAGES, request, trial))
    return done(request, "The draft is discarded.", PAGES.prefix, trial.code)


@trial_page(roles=VERSION_DRAFTERS)
def dry_run(request: HttpRequest, trial: Trial) -> HttpResponse:
    """What the draft would say of all metrics measured so far; answers a fragment."""
    result = services.dry_run(actor=request.user, row=get_draft(PAGES, trial))
    return render(request, "qc/_version_dry_run.html", {"result": result, "trial": trial})


@require_POST
@trial_page(roles=VERSION_LOCKERS)
def lock(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = get_read_draft(PAGES, request, trial)
    services.lock_profile(actor=request.user, row=row, **signing(request))
    return done(request, f"Version {row.version} is locked and in force.", PAGES.prefix, trial.code)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def amend(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = get_in_force(PAGES, trial)
    amended = services.amend_profile(actor=request.user, row=row, reason=request.POST.get("reason", ""))
    message = f"Draft version {amended.version} is started from version {row.version}."
    return done(request, message, DRAFT_PAGE, trial.code)
