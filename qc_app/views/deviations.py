"""Deviations: the list, one with its history, and what each role may do about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from hub.core.accounts.second_factor import has_second_factor
from hub.core.csv_export import csv_response
from hub.core.errors import InvalidInput, NotFound
from qc_app.models import Deviation, DeviationState, Severity
from qc_app.models.deviation import DEVIATION_TRANSITIONS
from qc_app.permissions import can_acknowledge, can_decide, can_raise_query, sees_staff_names
from qc_app.selectors import pages
from qc_app.services import deviation as services
from qc_app.services.query import About
from qc_app.services.waivers import SCOPES
from qc_app.views.series import ask_about
from sites_app.models import Site, Trial
from sites_app.views.filtering import chosen_filters
from sites_app.views.trial_pages import done, get_visible, trial_page

_PAGE = 50
_CSV_CHUNK = 500
WAIVER_MEANING = "I accept this deviation from the acquisition protocol."
_COLUMNS = [
    "id", "site", "subject", "visit", "series", "parameter", "rule", "label", "kind", "severity", "important",
    "expected", "observed", "state", "reason", "opened_at", "closed_at",
]  # fmt: skip
_FILTERS = {
    "site": "site__code",
    "subject": "subject__code",
    "state": "state",
    "severity": "severity",
    "parameter": "parameter",
}


@trial_page()
def deviation_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    filters = chosen_filters(request, _FILTERS)
    everything = pages.listed_deviations(request.user, trial)
    rows = filters.apply(everything)
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-deviations", _COLUMNS, map(_csv_row, rows.iterator(_CSV_CHUNK)))
    context = {
        "page": Paginator(rows, _PAGE).get_page(request.GET.get("page")),
        "filters": filters.values,
        "is_filtered": filters.any,
        "states": DeviationState.choices,
        "severities": Severity.choices,
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
        "parameters": everything.order_by("parameter").values_list("parameter", flat=True).distinct(),
    }
    return render(request, "qc/deviations.html", context)


@trial_page()
def deviation_page(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = _get(request, trial, pk)
    decides = can_decide(request.user, row) and not row.is_closed
    acknowledges = can_acknowledge(request.user, row)
    context = {
        "deviation": row,
        "rule": pages.rule_rows([row.verdict])[0],
        "queries": row.queries.all(),
        "to_set": pages.values_to_set(row.series),
        "may_acknowledge": acknowledges and DeviationState.ACKNOWLEDGED in DEVIATION_TRANSITIONS[row.state],
        "may_decide": decides,
        "may_ask": can_raise_query(request.user, row.trial_id, row.site_id) and not row.is_closed,
        "sees_staff": sees_staff_names(request.user, row.trial_id),
        "scopes": [scope for scope, column in SCOPES.items() if getattr(row, column) is not None],
        "meaning": WAIVER_MEANING,
        "second_factor": decides and has_second_factor(request.user),
    }
    return render(request, "qc/deviation.html", context)


@require_POST
@trial_page()
def act_on(request: HttpRequest, trial: Trial, pk: UUID, act: str) -> HttpResponse:
    """Acknowledge, waive, resolve or reject a deviation."""
    if act not in _ACTS:
        raise NotFound("There is no such act on a deviation.")
    carry_out, message = _ACTS[act]
    carry_out(request, _get(request, trial, pk))
    return done(request, message, "deviation", trial.code, pk)


@require_POST
@trial_page()
def ask(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """Ask the site about a deviation, or for a new scan."""
    query = ask_about(request, About.deviation_(_get(request, trial, pk)))
    return done(request, "The query is sent to the site.", "query", trial.code, query.pk)


def _acknowledge(request: HttpRequest, row: Deviation) -> None:
    services.acknowledge(actor=request.user, deviation=row, reason=request.POST.get("reason", ""))


def _resolve(request: HttpRequest, row: Deviation) -> None:
    services.resolve(actor=request.user, deviation=row, reason=request.POST.get("reason", ""))


def _reject(request: HttpRequest, row: Deviation) -> None:
    services.reject(actor=request.user, deviation=row, reason=request.POST.get("reason", ""))


def _waive(request: HttpRequest, row: Deviation) -> None:
    given = {name: request.POST.get(name, "") for name in ("reason", "scope", "password", "meaning", "otp")}
    expires_on = _day(request.POST.get("expires_on", ""))
    services.waive(actor=request.user, deviation=row, expires_on=expires_on, **given)


_ACTS: dict[str, tuple[Callable[[HttpRequest, Deviation], None], str]] = {
    "acknowledge": (_acknowledge, "The deviation is acknowledged."),
    "resolve": (_resolve, "The deviation is resolved."),
    "reject": (_reject, "The deviation is rejected: it counts as none."),
    "waive": (_waive, "The deviation is waived; your signature is recorded."),
}


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise InvalidInput(
            "The waiver's last day is no date.",
            errors=[{"field": "expires_on", "message": "Write it as year-month-day."}],
        ) from error


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Deviation:
    rows = Deviation.objects.select_related(
        "site", "subject", "visit__definition", "series", "scanner", "protocol", "closed_by", "signature"
    )
    return get_visible(rows, request.user, pk=pk, trial=trial)  # type: ignore[no-any-return]


def _csv_row(row: Deviation) -> list[Any]:
    rule = pages.rule_rows([row.verdict])[0]
    place = [
        str(row.pk),
        row.site.code,
        row.subject.code,
        row.visit.definition.code,
        str(row.series_id or ""),
    ]
    what = [
        row.parameter,
        row.rule,
        row.label,
        row.kind,
        row.severity,
        row.important,
        rule.expected,
        rule.observed,
    ]
    closed = row.closed_at.isoformat() if row.closed_at else ""
    return [*place, *what, row.state, row.reason, row.opened_at.isoformat(), closed]
