"""What was sent and what became of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from hub.core.csv_export import csv_response
from sites_app.models import FileOutcome, Role, Site, Submission, SubmissionState, Trial
from sites_app.permissions import can_submit, roles_in
from sites_app.selectors import pages
from sites_app.selectors.submission import files_of, visible_submissions
from sites_app.services.submission import cancel_submission
from sites_app.views.filtering import chosen_filters
from sites_app.views.trial_pages import done, get_visible, trial_page

_PAGE = 50
_FILES_PAGE = 200
_CSV_CHUNK = 500
_COLUMNS = ["id", "site", "subject", "visit", "state", "reason", "channel", "opened_at", "finished_at"]


@trial_page()
def submission_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    rows = pages.listed_submissions(request.user, trial)
    filters = chosen_filters(request, {"site": "site__code", "state": "state", "subject": "subject__code"})
    rows = filters.apply(rows)
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-submissions", _COLUMNS, map(_csv_row, rows.iterator(_CSV_CHUNK)))
    page = Paginator(rows, _PAGE).get_page(request.GET.get("page"))
    for submission in page:
        submission.shown_counts = pages.outcome_counts(pages.counts_of(submission))
    context = {
        "page": page,
        "filters": filters.values,
        "states": SubmissionState.choices,
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
        "may_send": bool(pages.sites_to_send_for(request.user, trial)),
    }
    return render(request, "sites/submissions.html", context)


@trial_page()
def submission_detail(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    submission = _get(request, trial, pk)
    return render(request, "sites/submission.html", _context(request, submission))


@trial_page()
def submission_progress(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """State, counts and reasons; renews itself until the submission is final. Answers a fragment."""
    return render(request, "sites/_submission_progress.html", _context(request, _get(request, trial, pk)))


@trial_page()
def files(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """What became of each file, by outcome and page; answers a fragment."""
    submission = _get(request, trial, pk)
    rows = files_of(submission)
    outcome = request.GET.get("outcome", "")
    if outcome in FileOutcome.values:
        rows = rows.filter(outcome=outcome)
    page = Paginator(rows, _FILES_PAGE).get_page(request.GET.get("page"))
    context = {
        "submission": submission,
        "page": page,
        "rows": pages.named_files(request.user, list(page)),
        "outcome": outcome,
        "outcomes": pages.outcome_counts(pages.counts_of(submission)),
    }
    return render(request, "sites/_submission_files.html", context)


@trial_page()
def receipt(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """The receipt for people, to read and to print."""
    submission = _get(request, trial, pk)
    return render(request, "sites/receipt.html", _context(request, submission))


@require_POST
@trial_page()
def cancel(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    submission = _get(request, trial, pk)
    cancel_submission(actor=request.user, submission=submission)
    return done(request, "The submission is cancelled. Nothing of it was kept.", "submission", trial.code, pk)


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Submission:
    return get_visible(visible_submissions(request.user), request.user, pk=pk, trial=trial)  # type: ignore[no-any-return]


def _csv_row(row: Submission) -> list[Any]:
    place = [str(row.pk), row.site.code, row.subject.code, row.visit.definition.code]
    finished = row.finished_at.isoformat() if row.finished_at else ""
    return [*place, row.state, row.reason, row.channel, row.created_at.isoformat(), finished]


def _context(request: HttpRequest, submission: Submission) -> dict[str, Any]:
    counts = pages.counts_of(submission)
    return {
        "submission": submission,
        "counts": counts,
        "outcomes": pages.outcome_counts(counts),
        "reasons": pages.reasons_of(submission),
        "document": pages.receipt_content(submission),
        "sees_staff": bool(roles_in(request.user, submission.trial_id) - {Role.SPONSOR}),
        "may_cancel": submission.state == SubmissionState.OPEN and can_submit(request.user, submission.site),
    }
