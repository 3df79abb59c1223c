"""A metric's distribution per scanner over time, and the life of one scanner."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from qc_app.metrics.registry import METRICS
from qc_app.models import ChangeEvent, DriftAlert, MetricValue
from sites_app.models import Scanner, ScannerEpoch, Site, Trial

MAX_POINTS = 5000
_QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class MetricPoint:
    """One value; time is that of receipt, because dates of acquisition are shifted for each subject."""

    series_id: UUID
    received_at: datetime
    value: float
    outcome: str
    epoch: int


@dataclass(frozen=True)
class ScannerDistribution:
    """One scanner's values with their quantiles (percent -> value) and the times its software changed."""

    scanner_id: UUID
    scanner: str
    site_code: str
    points: tuple[MetricPoint, ...]
    quantiles: dict[int, float]
    changes: tuple[tuple[datetime, str], ...]
    open_alerts: int


@dataclass(frozen=True)
class MetricDistribution:
    """A metric of one expected series on all visible scanners; `truncated` where older values are left out."""

    name: str
    label: str
    unit: str
    expected_key: str
    scanners: tuple[ScannerDistribution, ...]
    truncated: bool


def metric_distribution(
    user: Any, trial: Trial, *, name: str, expected_key: str = "", site: Site | None = None
) -> MetricDistribution:
    """Return the newest values of a metric by scanner. Raises KeyError for an unknown metric."""
    definition = METRICS[name]
    rows = (
        MetricValue.objects.visible_to(user)
        .filter(trial=trial, name=name, value__isnull=False, scanner__isnull=False)
        .select_related("scanner__site")
    )
    if expected_key:
        rows = rows.filter(expected_key=expected_key)
    if site is not None:
        rows = rows.filter(site=site)
    newest = list(
        rows.order_by("-received_at", "-pk").values_list(
            "scanner_id", "series_id", "received_at", "value", "outcome", "series__scanner_epoch__number"
        )[: MAX_POINTS + 1]
    )
    points: dict[UUID, list[MetricPoint]] = defaultdict(list)
    for scanner_id, series_id, received_at, value, outcome, epoch in reversed(newest[:MAX_POINTS]):
        points[scanner_id].append(MetricPoint(series_id, received_at, value, outcome, epoch or 0))
    return MetricDistribution(
        name,
        definition.label,
        definition.unit,
        expected_key,
        _scanners(points, name, expected_key),
        len(newest) > MAX_POINTS,
    )


def _scanners(
    points: dict[UUID, list[MetricPoint]], name: str, expected_key: str
) -> tuple[ScannerDistribution, ...]:
    changes: dict[UUID, list[tuple[datetime, str]]] = defaultdict(list)
    for event in ChangeEvent.objects.filter(scanner__in=points).select_related("first_series"):
        when = event.first_series.received_at if event.first_series is not None else event.created_at
        changes[event.scanner_id].append((when, f"{event.old} → {event.new}"))
    alerts: dict[UUID, int] = defaultdict(int)
    raised = DriftAlert.objects.filter(scanner__in=points, metric=name, state=DriftAlert.State.OPEN)
    if expected_key:
        raised = raised.filter(expected_key=expected_key)
    for scanner_id in raised.values_list("scanner_id", flat=True):
        alerts[scanner_id] += 1
    return tuple(
        ScannerDistribution(
            scanner.pk,
            str(scanner),
            scanner.site.code,
            tuple(points[scanner.pk]),
            _quantiles([point.value for point in points[scanner.pk]]),
            tuple(sorted(changes[scanner.pk])),
            alerts[scanner.pk],
        )
        for scanner in Scanner.objects.filter(pk__in=points).select_related("site")
    )


def _quantiles(values: list[float]) -> dict[int, float]:
    return dict(zip(_QUANTILES, (float(item) for item in np.percentile(values, _QUANTILES)), strict=True))


@dataclass(frozen=True)
class TimelineEntry:
    """One thing in a scanner's life: epoch, change_event or drift_alert."""

    at: datetime
    kind: str
    id: UUID
    title: str
    detail: str
    state: str


def scanner_timeline(scanner: Scanner) -> tuple[TimelineEntry, ...]:
    """Return a scanner's epochs, changes and drift alerts, newest first; the caller has checked its visibility."""
    entries = [
        TimelineEntry(
            row.created_at,
            "epoch",
            row.pk,
            f"Epoch {row.number}",
            row.software_versions or "software version not recorded",
            "",
        )
        for row in ScannerEpoch.objects.filter(scanner=scanner)
    ]
    entries += [
        TimelineEntry(
            row.created_at,
            "change_event",
            row.pk,
            f"{row.kind.capitalize()} changed",
            f"{row.old} → {row.new}",
            row.state,
        )
        for row in ChangeEvent.objects.filter(scanner=scanner)
    ]
    entries += [
        TimelineEntry(
            row.created_at,
            "drift_alert",
            row.pk,
            f"{METRICS[row.metric].label if row.metric in METRICS else row.metric} drifts {row.direction}",
            row.detail,
            row.state,
        )
        for row in DriftAlert.objects.filter(scanner=scanner)
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.at, str(entry.id)), reverse=True))
