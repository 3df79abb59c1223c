"""Queries: the list, one with its thread, answering and closing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from hub.core.csv_export import csv_response
from hub.core.errors import NotFound
from qc_app.models import Query, QueryState
from qc_app.models.deviation import QUERY_TRANSITIONS
from qc_app.permissions import can_answer_query, can_close_query, sees_staff_names
from qc_app.selectors import pages
from qc_app.services import query as services
from sites_app.models import Site, Trial
from sites_app.permissions import can_submit
from sites_app.views.filtering import chosen_filters
from sites_app.views.trial_pages import done, get_visible, trial_page

_PAGE = 50
_CSV_CHUNK = 500
_COLUMNS = [
    "id", "site", "subject", "visit", "series", "deviation", "title", "rescan_request", "raised_by_system", "state",
    "created_at", "closed_at", "closing_reason",
]  # fmt: skip
_FILTERS = {"site": "site__code", "subject": "subject__code", "state": "state"}


@trial_page()
def query_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    filters = chosen_filters(request, _FILTERS)
    rows = filters.apply(pages.listed_queries(request.user, trial))
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-queries", _COLUMNS, map(_csv_row, rows.iterator(_CSV_CHUNK)))
    context = {
        "page": Paginator(rows, _PAGE).get_page(request.GET.get("page")),
        "filters": filters.values,
        "is_filtered": filters.any,
        "states": QueryState.choices,
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
    }
    return render(request, "qc/queries.html", context)


@trial_page()
def query_page(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = _get(request, trial, pk)
    possible = QUERY_TRANSITIONS[row.state]
    closes = can_close_query(request.user, row)
    context = {
        "query_row": row,
        "thread": pages.thread_of(row),
        "to_set": pages.values_to_set(row.series) if row.state != QueryState.CLOSED else [],
        "may_answer": QueryState.ANSWERED in possible and can_answer_query(request.user, row),
        "may_close": QueryState.CLOSED in possible and closes,
        "may_reopen": QueryState.OPEN in possible and closes,
        "may_send": can_submit(request.user, row.site),
        "sees_staff": sees_staff_names(request.user, row.trial_id),
    }
    return render(request, "qc/query.html", context)


@require_POST
@trial_page()
def act_on(request: HttpRequest, trial: Trial, pk: UUID, act: str) -> HttpResponse:
    """Answer, close or reopen a query."""
    if act not in _ACTS:
        raise NotFound("There is no such act on a query.")
    carry_out, message = _ACTS[act]
    carry_out(request, _get(request, trial, pk))
    return done(request, message, "query", trial.code, pk)


def _answer(request: HttpRequest, row: Query) -> None:
    services.answer_query(actor=request.user, query=row, text=request.POST.get("text", ""))


def _reopen(request: HttpRequest, row: Query) -> None:
    services.reopen_query(actor=request.user, query=row, text=request.POST.get("text", ""))


def _close(request: HttpRequest, row: Query) -> None:
    services.close_query(actor=request.user, query=row, reason=request.POST.get("reason", ""))


_ACTS: dict[str, tuple[Callable[[HttpRequest, Query], None], str]] = {
    "answer": (_answer, "The answer is sent."),
    "reopen": (_reopen, "The site is asked again."),
    "close": (_close, "The query is closed."),
}


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Query:
    rows = Query.objects.select_related(
        "site", "subject", "visit__definition", "series", "deviation", "raised_by"
    )
    return get_visible(rows, request.user, pk=pk, trial=trial)  # type: ignore[no-any-return]


def _csv_row(row: Query) -> list[Any]:
    place = [
        row.site.code,
        row.subject.code if row.subject else "",
        row.visit.definition.code if row.visit else "",
    ]
    about = [str(row.series_id or ""), str(row.deviation_id or "")]
    closed = row.closed_at.isoformat() if row.closed_at else ""
    rest = [row.title, row.is_rescan_request, row.raised_by_id is None, row.state, row.created_at.isoformat()]
    return [str(row.pk), *place, *about, *rest, closed, row.closing_reason]
