"""Scanners: the list, one scanner's history, its control charts, and the review of changes and alerts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Count, F, Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from qc_app import metric_charts
from qc_app.metrics.registry import METRICS
from qc_app.models import ChangeEvent, DriftAlert
from qc_app.permissions import MONITORING_REVIEWERS, can_review_monitoring
from qc_app.selectors.charts import expected_series
from qc_app.selectors.control import control_chart, watched_metrics, watched_series
from qc_app.selectors.dashboard import scanner_timeline
from qc_app.services.drift import review
from qc_app.views.panels import axis_title, chosen_site, series_url
from sites_app.models import Scanner, Site, Trial
from sites_app.views.trial_pages import done, get_visible, trial_page

_REVIEWED = {"alert": DriftAlert, "change": ChangeEvent}


def scanner_rows(user: Any, trial: Trial, site: Site | None = None) -> QuerySet[Scanner]:
    """Return the visible scanners with their counts of series, epochs, open alerts and open changes."""
    rows = Scanner.objects.visible_to(user).filter(trial=trial)
    if site is not None:
        rows = rows.filter(site=site)
    open_alerts = Q(drift_alerts__state=DriftAlert.State.OPEN)
    open_changes = Q(change_events__state=ChangeEvent.State.OPEN)
    return (
        rows.select_related("site")
        .prefetch_related("epochs")
        .annotate(  # type: ignore[no-any-return]
            series_count=Count("series", distinct=True),
            last_received=Max("series__received_at"),
            open_alerts=Count("drift_alerts", filter=open_alerts, distinct=True),
            open_changes=Count("change_events", filter=open_changes, distinct=True),
        )
    )


@trial_page()
def scanners(request: HttpRequest, trial: Trial) -> HttpResponse:
    site = chosen_site(request, trial)
    context = {
        "scanners": scanner_rows(request.user, trial, site),
        "sites": Site.objects.visible_to(request.user).filter(trial=trial),
        "chosen": site.code if site else "",
    }
    return render(request, "qc/scanners.html", context)


@trial_page()
def scanner(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = get_visible(Scanner.objects.select_related("site"), request.user, pk=pk, trial=trial)
    alerts = DriftAlert.objects.filter(scanner=row).order_by(F("state").asc(), "-created_at")
    context = {
        "scanner": row,
        "epochs": row.epochs.annotate(series_count=Count("series")),
        "timeline": scanner_timeline(row),
        "alerts": [(alert, METRICS.get(alert.metric)) for alert in alerts],
        "changes": ChangeEvent.objects.filter(scanner=row),
        "may_review": can_review_monitoring(request.user, row),
    }
    return render(request, "qc/scanner.html", context | _control_context(request, trial, row))


@trial_page()
def control(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """The control chart of the chosen metric; answers a fragment."""
    row = get_visible(Scanner.objects.select_related("site"), request.user, pk=pk, trial=trial)
    return render(
        request, "qc/_scanner_control.html", {"scanner": row, **_control_context(request, trial, row)}
    )


@require_POST
@trial_page(roles=MONITORING_REVIEWERS)
def review_finding(request: HttpRequest, trial: Trial, kind: str, pk: UUID) -> HttpResponse:
    row = get_visible(_REVIEWED[kind].objects, request.user, pk=pk, trial=trial)
    review(actor=request.user, row=row, comment=request.POST.get("comment", ""))
    message = f"The {row._meta.verbose_name} is marked as reviewed."
    return done(request, message, "trial-scanner", trial.code, row.scanner_id)


def _control_context(request: HttpRequest, trial: Trial, row: Scanner) -> dict[str, Any]:
    keys = watched_series(row)
    open_alert = DriftAlert.objects.filter(scanner=row, state=DriftAlert.State.OPEN).first()
    key = _chosen(request.GET.get("series", ""), open_alert.expected_key if open_alert else "", keys)
    names = watched_metrics(row, key)
    alerted = open_alert.metric if open_alert and open_alert.expected_key == key else ""
    name = _chosen(request.GET.get("metric", ""), alerted, names)
    titles = {series.key: series.title for series in expected_series(trial)}
    context: dict[str, Any] = {
        "trial": trial,
        "control_series": [(item, titles.get(item, item)) for item in keys],
        "control_key": key,
        "control_metrics": [METRICS[item] for item in names],
        "control_name": name,
        "control": None,
    }
    if name:
        chart = control_chart(request.user, row, metric=name, expected_key=key)
        links = {point.series_id: series_url(trial, point.series_id) for point in chart.points}
        axis = axis_title(chart.label, chart.unit)
        context |= {"control": chart, "control_chart": metric_charts.control(chart, axis, links)}
    return context


def _chosen(asked: str, otherwise: str, known: tuple[str, ...]) -> str:
    """Return what was asked for, else the preferred one, else the first; "" where there is none."""
    return next((item for item in (asked, otherwise) if item in known), known[0] if known else "")
