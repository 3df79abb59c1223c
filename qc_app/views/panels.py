"""Panels that several pages show: the subject by visit grid and a metric's values per scanner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.core.paginator import Page, Paginator
from django.http import HttpRequest
from django.urls import reverse

from qc_app import metric_charts
from qc_app.metrics.registry import METRICS
from qc_app.protocol.model import ExpectedSeries
from qc_app.selectors.charts import alert_points, bounds_of, default_metric, expected_series, metric_choices
from qc_app.selectors.dashboard import CELL_STATES, metric_distribution, subject_visit_grid
from qc_app.selectors.distribution import MetricDistribution, ScannerDistribution
from qc_app.selectors.next_steps import planned_visits
from sites_app.models import Site, Trial
from sites_app.views.trial_pages import get_visible

GRID_PAGE = 100
SCANNERS_DRAWN = 12
# Which known state draws each of the grid's: its shape and tone.
CELL_LOOKS = {"nothing": "expected", "received": "checking", "failed_qc": "fail"}


def chosen_site(request: HttpRequest, trial: Trial) -> Site | None:
    """Return the site of the query string, None for all. Raises NotFound for one that the user may not see."""
    code = request.GET.get("site", "")
    return get_visible(Site.objects, request.user, trial=trial, code=code) if code else None


def grid_context(request: HttpRequest, trial: Trial, site: Site | None = None) -> dict[str, Any]:
    """Return what the grid shows: GRID_PAGE subjects of the chosen site."""
    chosen = site or chosen_site(request, trial)
    number = _page_number(request.GET.get("grid_page", ""))
    grid = subject_visit_grid(
        request.user, trial, site=chosen, offset=(number - 1) * GRID_PAGE, limit=GRID_PAGE
    )
    looks = [(CELL_LOOKS.get(state, state), label) for state, label in CELL_STATES.items()]
    return {
        "trial": trial,
        "grid": grid,
        "grid_planned": {row.code for row in planned_visits(trial)},
        "grid_looks": CELL_LOOKS,
        "grid_legend": looks,
        "grid_site": chosen.code if chosen else "",
        "grid_page": _page(grid.subjects, number),
        "grid_fixed_site": site is not None,
    }


def _page_number(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() and len(text) < 6 else 1


def _page(count: int, number: int) -> Page:
    return Paginator(range(count), GRID_PAGE).get_page(number)


def metric_context(
    request: HttpRequest, trial: Trial, site: Site | None = None, *, fixed: bool = False
) -> dict[str, Any]:
    """Return what the metric panel shows: choices, the distribution per scanner and over time.

    `fixed`: the page is about `site` alone, so that no other can be chosen.
    """
    expected = expected_series(trial)
    series = _chosen_series(expected, request.GET.get("series", ""))
    if series is None:
        return {"trial": trial, "metric_series": (), "distribution": None}
    choices = metric_choices(trial, series)
    names = [choice.definition.name for choice in choices]
    name = request.GET.get("metric", "")
    name = name if name in names else default_metric(choices)
    distribution = metric_distribution(request.user, trial, name=name, expected_key=series.key, site=site)
    return {
        "trial": trial,
        "metric_series": expected,
        "metric_chosen_series": series,
        "metric_choices": choices,
        "metric_name": name,
        "metric_definition": METRICS[name],
        "metric_site": site.code if site else "",
        "metric_fixed_site": fixed,
        "metric_sites": Site.objects.visible_to(request.user).filter(trial=trial),
        "distribution": distribution,
        **_metric_charts(request, trial, series, distribution),
    }


def _chosen_series(expected: Iterable[ExpectedSeries], key: str) -> ExpectedSeries | None:
    series = list(expected)
    return next((item for item in series if item.key == key), series[0] if series else None)


def _metric_charts(
    request: HttpRequest, trial: Trial, series: ExpectedSeries, distribution: MetricDistribution
) -> dict[str, Any]:
    bounds = bounds_of(trial, series, distribution.name)
    alerts = alert_points(request.user, trial, metric=distribution.name, expected_key=series.key)
    axis = axis_title(distribution.label, distribution.unit)
    shown = distribution.scanners
    links = {item.scanner_id: reverse("trial-scanner", args=[trial.code, item.scanner_id]) for item in shown}
    extent = metric_charts.extent_of(shown)
    drawn = []
    for place, item in enumerate(shown[:SCANNERS_DRAWN]):
        options = metric_charts.over_time(
            item, axis, bounds, alerts.get(item.scanner_id, ()), extent, _series_links(trial, item)
        )
        drawn.append({"id": f"over-time-{place}", "scanner": item, "options": options})
    rows = [
        {
            "scanner": item,
            "outcomes": Counter(point.outcome for point in item.points),
            "href": links[item.scanner_id],
        }
        for item in shown
    ]
    return {
        "metric_bounds": bounds,
        "boxes_chart": metric_charts.boxes(shown[: 2 * SCANNERS_DRAWN], axis, bounds, links),
        "over_time": drawn,
        "metric_rows": rows,
    }


def _series_links(trial: Trial, item: ScannerDistribution) -> dict[UUID, str]:
    return {point.series_id: series_url(trial, point.series_id) for point in item.points}


def series_url(trial: Trial, series_id: UUID) -> str:
    return reverse("series-page", args=[trial.code, series_id])


def axis_title(label: str, unit: str) -> str:
    """Return a quantity with its unit; ratios and counts (unit 1) have none."""
    return label if unit == "1" else f"{label} ({unit})"
