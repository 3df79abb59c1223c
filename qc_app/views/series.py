"""Series: the list, one beside its protocol, and those of a submission as they are judged."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from hub.core.csv_export import csv_response
from qc_app.models import ProtocolOutcome, QCOutcome
from qc_app.permissions import can_raise_query
from qc_app.selectors import pages
from qc_app.selectors.checks import current_check
from qc_app.services.query import About, raise_query, request_rescan
from sites_app.models import Series, SeriesState, Site, Submission, Trial
from sites_app.views.filtering import chosen_filters
from sites_app.views.trial_pages import done, get_visible, trial_page

_PAGE = 50
_CSV_CHUNK = 500
INSTANCES_SHOWN = 1000
_COLUMNS = [
    "id", "site", "subject", "visit", "modality", "description", "acquired_on", "received_at", "instances", "state",
    "expected_series", "protocol_outcome", "qc_outcome", "open_deviations",
]  # fmt: skip
_FILTERS = {
    "site": "site__code",
    "subject": "subject__code",
    "modality": "modality",
    "state": "state",
    "scanner": "scanner__serial_number",
}


@trial_page()
def series_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    filters = chosen_filters(request, _FILTERS)
    outcomes = chosen_filters(request, {"protocol": "", "quality": ""}).values
    rows = filters.apply(pages.listed_series(request.user, trial, **outcomes))
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-series", _COLUMNS, map(_csv_row, rows.iterator(_CSV_CHUNK)))
    seen = Series.objects.visible_to(request.user).filter(trial=trial)
    context = {
        "page": Paginator(rows, _PAGE).get_page(request.GET.get("page")),
        "filters": {**filters.values, **outcomes},
        "is_filtered": any([*filters.values.values(), *outcomes.values()]),
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
        "modalities": seen.order_by("modality").values_list("modality", flat=True).distinct(),
        "states": SeriesState.choices,
        "protocol_outcomes": ProtocolOutcome.choices,
        "quality_outcomes": QCOutcome.choices,
    }
    return render(request, "qc/series_list.html", context)


@trial_page()
def series_page(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    series = _get(request, trial, pk)
    check = current_check(series)
    verdicts = check.verdicts if check else []
    metrics = pages.metric_rows(check.metrics if check else [])
    context = {
        "series": series,
        "check": check,
        "rules": pages.rule_rows(verdicts),
        "parameters": pages.parameter_rows(series, verdicts),
        "judged_metrics": [row for row in metrics if row.picture],
        "other_metrics": [row for row in metrics if not row.picture],
        "geometry": (series.observation or {}).get("geometry"),
        "deidentification": pages.deidentification_rows(series),
        "instances": pages.instances_of(series)[:INSTANCES_SHOWN],
        "instances_shown": INSTANCES_SHOWN,
        "deviations": pages.deviations_of(series),
        "queries": pages.queries_of(series),
        "to_set": pages.values_to_set(series),
        "former": pages.former_checks(series),
        "may_ask": can_raise_query(request.user, series.trial_id, series.site_id),
    }
    return render(request, "qc/series.html", context)


@trial_page()
def submission_series(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """The series of a submission with their verdicts; renews itself until all are judged. Answers a fragment."""
    submission = get_visible(Submission.objects.select_related("visit"), request.user, pk=pk, trial=trial)
    rows = pages.series_of_submission(submission)
    context = {
        "trial": trial,
        "submission": submission,
        "rows": rows,
        "judged": pages.is_judged(rows),
        "visit_deviations": pages.visit_deviations(submission),
    }
    return render(request, "qc/_submission_series.html", context)


@require_POST
@trial_page()
def ask(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """Ask the site about a series, or for a new scan."""
    query = ask_about(request, About.series_(_get(request, trial, pk)))
    return done(request, "The query is sent to the site.", "query", trial.code, query.pk)


def ask_about(request: HttpRequest, about: About) -> Any:
    text = request.POST.get("text", "")
    if request.POST.get("rescan") and about.series is not None:
        return request_rescan(actor=request.user, series=about.series, comment=text)
    return raise_query(actor=request.user, about=about, title=request.POST.get("title", ""), text=text)


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Series:
    rows = Series.objects.select_related(
        "site", "subject", "visit__definition", "scanner", "scanner_epoch", "study"
    )
    return get_visible(rows.filter(instance_count__gt=0), request.user, pk=pk, trial=trial)  # type: ignore[no-any-return]


def _csv_row(row: Series) -> list[Any]:
    check = row.current_checks[0] if row.current_checks else None  # type: ignore[attr-defined]
    judged = [check.expected_key, check.protocol_outcome, check.qc_outcome] if check else ["", "", ""]
    place = [str(row.pk), row.site.code, row.subject.code, row.visit.definition.code, row.modality]
    facts = [
        row.description,
        row.acquired_on or "",
        row.received_at.isoformat(),
        row.instance_count,
        row.state,
    ]
    return [*place, *facts, *judged, row.open_deviations]  # type: ignore[attr-defined]
