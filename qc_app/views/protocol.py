"""The acquisition protocol for people: read it, change its draft, try it out, lock it, amend it."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from hub.core.errors import InvalidInput
from qc_app.permissions import VERSION_DRAFTERS, VERSION_LOCKERS
from qc_app.protocol.template_files import load_template, template_names
from qc_app.selectors.documents import read_protocol
from qc_app.services import protocol as services
from qc_app.services.protocol import PROTOCOL
from qc_app.views.versions import (
    VersionPages,
    get_draft,
    get_in_force,
    get_read_draft,
    posted_document,
    signing,
    version_context,
)
from sites_app.models import Series, Trial
from sites_app.views.trial_pages import done, get_visible, trial_page

PAGES = VersionPages(PROTOCOL, "protocol", "trial-protocol")
DRAFT_PAGE = "trial-protocol-draft"


@trial_page()
def protocol(request: HttpRequest, trial: Trial) -> HttpResponse:
    return _page(request, trial, drafting=False)


@trial_page()
def draft(request: HttpRequest, trial: Trial) -> HttpResponse:
    return _page(request, trial, drafting=True)


def _page(request: HttpRequest, trial: Trial, *, drafting: bool) -> HttpResponse:
    context = version_context(PAGES, request, trial, drafting=drafting)
    shown = context["shown"]
    context |= {
        "sections": read_protocol(shown) if shown is not None else (),
        "changes": services.changes_since_lock(shown) if context["shows_draft"] else [],
        "templates": [(name, load_template(name)["title"]) for name in template_names()],
    }
    return render(request, "qc/protocol.html", context)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def create(request: HttpRequest, trial: Trial) -> HttpResponse:
    """Start the first draft from a shipped template."""
    document = services.template_document(request.POST.get("template", ""))
    row = services.create_draft(actor=request.user, trial=trial, document=document)
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
def import_template(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = get_draft(PAGES, trial)
    name = request.POST.get("template", "")
    services.import_template(actor=request.user, row=row, name=name)
    return done(request, f"The series of {name} are in the draft.", DRAFT_PAGE, trial.code)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def capture(request: HttpRequest, trial: Trial) -> HttpResponse:
    """Add an expected series with the values of a reference series."""
    row = get_draft(PAGES, trial)
    series = _reference_series(request, trial)
    key, title = (request.POST.get(name, "").strip() for name in ("key", "title"))
    services.import_series(actor=request.user, row=row, series=series, key=key, title=title)
    message = f"The draft expects a series {key} like the reference series. Read its tolerances."
    return done(request, message, DRAFT_PAGE, trial.code)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def discard(request: HttpRequest, trial: Trial) -> HttpResponse:
    services.discard_draft(actor=request.user, row=get_read_draft(PAGES, request, trial))
    return done(request, "The draft is discarded.", PAGES.prefix, trial.code)


@trial_page(roles=VERSION_DRAFTERS)
def dry_run(request: HttpRequest, trial: Trial) -> HttpResponse:
    """What the draft would say of all series received so far; answers a fragment."""
    result = services.dry_run(actor=request.user, row=get_draft(PAGES, trial))
    return render(request, "qc/_version_dry_run.html", {"result": result, "trial": trial})


@require_POST
@trial_page(roles=VERSION_LOCKERS)
def lock(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = get_read_draft(PAGES, request, trial)
    services.lock_protocol(actor=request.user, row=row, **signing(request))
    return done(request, f"Version {row.version} is locked and in force.", PAGES.prefix, trial.code)


@require_POST
@trial_page(roles=VERSION_DRAFTERS)
def amend(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = get_in_force(PAGES, trial)
    amended = services.amend_protocol(actor=request.user, row=row, reason=request.POST.get("reason", ""))
    message = f"Draft version {amended.version} is started from version {row.version}."
    return done(request, message, DRAFT_PAGE, trial.code)


def _reference_series(request: HttpRequest, trial: Trial) -> Series:
    """Return the series of the posted id, or of the last part of a series page's address."""
    text = request.POST.get("series", "").strip().rstrip("/").rpartition("/")[2]
    try:
        pk = UUID(text)
    except ValueError as error:
        raise InvalidInput(
            "Give the id of a received series, or the address of its page.",
            errors=[{"field": "series", "message": "is no id of a series"}],
        ) from error
    return get_visible(Series.objects, request.user, trial=trial, pk=pk)  # type: ignore[no-any-return]
