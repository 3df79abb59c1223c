"""The trial's dashboard: figures, subject by visit grid, scorecards, deviations, metrics per scanner."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from hub.core.csv_export import csv_response
from qc_app import charts
from qc_app.selectors.charts import trial_figures
from qc_app.selectors.dashboard import deviation_pareto, site_scorecards
from qc_app.selectors.scorecard import SiteScorecard
from qc_app.views.panels import chosen_site, grid_context, metric_context
from sites_app.models import Site, Trial
from sites_app.views.trial_pages import EVERY_ROLE, TRIAL_WIDE_ROLES, trial_page

_SCORECARD_COLUMNS = (
    "site", "name", "submissions", "series_received", "visits", "first_pass_visits", "first_pass_percent",
    "open_critical", "open_major", "open_minor", "open_info", "deviations", "open_queries", "qc_pass", "qc_warn",
    "qc_fail", "qc_not_evaluable", "check_turnaround_median_s", "deviation_turnaround_median_h",
)  # fmt: skip


@trial_page(roles=TRIAL_WIDE_ROLES)
def dashboard(request: HttpRequest, trial: Trial) -> HttpResponse:
    cards = site_scorecards(request.user, trial)
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-scorecards", _SCORECARD_COLUMNS, [_row(card) for card in cards])
    bars = deviation_pareto(request.user, trial)
    links = {card.site_id: reverse("site-dashboard", args=[trial.code, card.site_code]) for card in cards}
    context: dict[str, Any] = {
        "figures": trial_figures(request.user, trial, cards),
        "cards": cards,
        "bars": bars,
        "pareto_chart": charts.pareto(bars),
        "sites_chart": charts.open_by_site(cards, links),
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
    }
    context |= grid_context(request, trial) | metric_context(request, trial)
    return render(request, "qc/dashboard.html", context)


@trial_page(roles=EVERY_ROLE)
def grid(request: HttpRequest, trial: Trial) -> HttpResponse:
    """The subject by visit grid of the chosen site and page; answers a fragment."""
    return render(request, "qc/_dashboard_grid.html", grid_context(request, trial))


@trial_page(roles=EVERY_ROLE)
def metric(request: HttpRequest, trial: Trial) -> HttpResponse:
    """The chosen metric's values per scanner; answers a fragment."""
    context = metric_context(
        request, trial, chosen_site(request, trial), fixed=request.GET.get("fixed") == "yes"
    )
    return render(request, "qc/_dashboard_metric.html", context)


def _row(card: SiteScorecard) -> list[Any]:
    severities = [card.open_deviations[name] for name in ("critical", "major", "minor", "info")]
    outcomes = [card.qc_outcomes[name] for name in ("pass", "warn", "fail", "not_evaluable")]
    return [
        card.site_code,
        card.site_name,
        card.submissions,
        card.series_received,
        card.visits,
        card.first_pass,
        card.first_pass_percent,
        *severities,
        card.deviations,
        card.open_queries,
        *outcomes,
        card.check_turnaround_s,
        card.deviation_turnaround_h,
    ]
