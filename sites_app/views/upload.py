"""The page to send images: choose subject and visit, then a folder; the rest is done by static/js/upload.js."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from hub.core.errors import NotFound
from sites_app.models import FileOutcome, Subject, Trial
from sites_app.permissions import UPLOADERS
from sites_app.selectors import pages
from sites_app.views.trial_pages import trial_page

# What a file can be while it is sent, then what became of it.
FILE_STATES = ("queued", "running", "received", "failed", *FileOutcome.values)


@trial_page(roles=UPLOADERS)
def upload(request: HttpRequest, trial: Trial) -> HttpResponse:
    sites = pages.sites_to_send_for(request.user, trial)
    subjects = list(pages.subjects_of(sites))
    chosen = _chosen(subjects, request.GET.get("subject", ""))
    context = {
        "sites": sites,
        "subjects": subjects,
        "chosen": chosen,
        "visits": pages.visit_choices(chosen) if chosen else [],
        "chosen_visit": request.GET.get("visit", ""),
        "file_states": FILE_STATES,
        "addresses": {"api": reverse("submission-list"), "pages": reverse("submissions", args=[trial.code])},
    }
    return render(request, "sites/upload.html", context)


@trial_page(roles=UPLOADERS)
def visits(request: HttpRequest, trial: Trial) -> HttpResponse:
    """The visits of a subject, for the form; answers a fragment."""
    subjects = list(pages.subjects_of(pages.sites_to_send_for(request.user, trial)))
    subject = _chosen(subjects, request.GET.get("subject", ""))
    if subject is None:
        if request.GET.get("subject"):
            raise NotFound("There is no such subject at a site that you may send images for.")
        return render(request, "sites/_visit_choice.html", {"visits": []})
    context = {"visits": pages.visit_choices(subject), "chosen": subject}
    return render(request, "sites/_visit_choice.html", context)


def _chosen(subjects: list[Subject], code: str) -> Subject | None:
    return next((subject for subject in subjects if subject.code == code), None)
