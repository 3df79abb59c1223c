"""A site's dashboard: its scorecard, submissions, deviations, scanners and metrics."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from qc_app import charts
from qc_app.models import ChangeEvent, Deviation
from qc_app.selectors.charts import submission_weeks
from qc_app.selectors.dashboard import deviation_pareto, site_scorecards
from qc_app.services.findings import ACTIVE
from qc_app.views.panels import grid_context, metric_context
from qc_app.views.scanner import scanner_rows
from sites_app.models import Site, Submission, Trial
from sites_app.views.trial_pages import get_visible, trial_page

_LISTED = 20


@trial_page()
def site(request: HttpRequest, trial: Trial, site_code: str) -> HttpResponse:
    row = get_visible(Site.objects, request.user, trial=trial, code=site_code)
    (card,) = site_scorecards(request.user, trial, site=row)
    weeks = submission_weeks(row)
    bars = deviation_pareto(request.user, trial, site=row)
    context: dict[str, Any] = {
        "site": row,
        "card": card,
        "weeks": weeks,
        "weeks_chart": charts.weeks(weeks),
        "bars": bars,
        "pareto_chart": charts.pareto(bars),
        "submissions": Submission.objects.filter(site=row).select_related("subject", "visit__definition")[
            :_LISTED
        ],
        "deviations": _open_deviations(row),
        "scanners": scanner_rows(request.user, trial, row),
        "changes": ChangeEvent.objects.filter(site=row).select_related("scanner")[:_LISTED],
    }
    context |= grid_context(request, trial, row) | metric_context(request, trial, row, fixed=True)
    return render(request, "qc/site.html", context)


def _open_deviations(row: Site) -> Any:
    rows = Deviation.objects.filter(site=row, state__in=ACTIVE)
    return rows.select_related("subject", "visit__definition").order_by("-important", "opened_at")[:_LISTED]
