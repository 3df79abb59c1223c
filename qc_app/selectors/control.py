"""The control charts of one scanner: what the drift watch sees, in the metric's own unit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from qc_app.metrics import charts, drift
from qc_app.metrics.registry import METRICS
from qc_app.models import DriftAlert, MetricValue
from qc_app.services.drift import MONITORED, Point, assess_points, points_of
from sites_app.models import Scanner

METHODS = {
    "charts": "control charts against the first 20 scans",
    "prediction": "each scan against those before it, until 20 make a baseline",
    "learning": "too few scans to judge; a baseline begins with the sixth",
    "constant": "the first 20 scans do not vary; nothing can be charted",
}


@dataclass(frozen=True)
class ControlPoint:
    """One scan; `number` is its place in the scanner's order of epochs and receipt, counted from 1.

    `ewma`, `low` and `high` (in the metric's unit) are None inside the baseline.
    """

    number: int
    series_id: UUID
    received_at: datetime
    epoch: int
    value: float
    ewma: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ControlSegment:
    """Scans between two scanner changes: which numbers, their epoch, baseline mean and sd, and the method."""

    first: int
    last: int
    epoch: int
    mean: float | None
    sd: float | None
    method: str

    @property
    def method_text(self) -> str:
        return METHODS[self.method]


@dataclass(frozen=True)
class ControlSignal:
    """An alert at a scan, as it was raised."""

    number: int
    alert: DriftAlert


@dataclass(frozen=True)
class ControlChart:
    """One metric of one expected series on one scanner."""

    metric: str
    label: str
    unit: str
    points: tuple[ControlPoint, ...]
    segments: tuple[ControlSegment, ...]
    signals: tuple[ControlSignal, ...]


def watched_metrics(scanner: Scanner, expected_key: str) -> tuple[str, ...]:
    """Return the metrics that the drift watch follows and that this scanner has values of, in registry order."""
    names = set(
        MetricValue.objects.filter(
            scanner=scanner, expected_key=expected_key, name__in=MONITORED, value__isnull=False
        )
        .order_by()
        .values_list("name", flat=True)
        .distinct()
    )
    return tuple(name for name in METRICS if name in names)


def watched_series(scanner: Scanner) -> tuple[str, ...]:
    """Return the expected series of which the scanner has measured metrics."""
    rows = MetricValue.objects.filter(scanner=scanner).exclude(expected_key="")
    return tuple(rows.order_by("expected_key").values_list("expected_key", flat=True).distinct())


def control_chart(user: Any, scanner: Scanner, *, metric: str, expected_key: str) -> ControlChart:
    """Return the chart of a metric; the caller has checked the scanner's visibility.

    Raises KeyError for an unknown metric.
    """
    definition = METRICS[metric]
    measured = points_of(scanner_id=scanner.pk, expected_key=expected_key, names=[metric]).get(metric, [])
    usable = [point for point in measured if point.value is not None]
    assessment = assess_points(usable)
    points: list[ControlPoint] = []
    for segment in assessment.segments:
        points += _segment_points(segment, usable)
    points.sort(key=lambda point: point.number)
    segments = tuple(
        ControlSegment(
            segment.indices[0] + 1,
            segment.indices[-1] + 1,
            usable[segment.indices[0]].epoch,
            segment.baseline_mean,
            segment.baseline_sd,
            segment.method,
        )
        for segment in assessment.segments
    )
    return ControlChart(
        metric,
        definition.label,
        definition.unit,
        tuple(points),
        segments,
        _signals(user, scanner, metric, expected_key, usable),
    )


def _segment_points(segment: drift.Segment, usable: list[Point]) -> list[ControlPoint]:
    """Return a segment's scans with the EWMA and its limits, mean ± limit x sd, after the baseline."""
    count = len(segment.indices)
    smooth = np.full((3, count), np.nan)
    if segment.method == "charts" and segment.baseline_mean is not None and segment.baseline_sd:
        later = slice(drift.BASELINE_SCANS, count)
        values = np.array([usable[index].value for index in segment.indices[later]], dtype=np.float64)
        chart = charts.ewma((values - segment.baseline_mean) / segment.baseline_sd)
        for row, line in enumerate((chart.statistic, -chart.limit, chart.limit)):
            smooth[row, later] = segment.baseline_mean + segment.baseline_sd * line
    found = []
    for place, index in enumerate(segment.indices):
        point = usable[index]
        ewma, low, high = (None if np.isnan(value) else float(value) for value in smooth[:, place])
        found.append(
            ControlPoint(
                index + 1,
                point.series_id,
                point.received_at,
                point.epoch,
                float(point.value),  # type: ignore[arg-type]  # only points with a value are charted
                ewma,
                low,
                high,
            )
        )
    return found


def _signals(
    user: Any, scanner: Scanner, metric: str, expected_key: str, usable: list[Point]
) -> tuple[ControlSignal, ...]:
    numbers = {point.series_id: place for place, point in enumerate(usable, start=1)}
    rows = DriftAlert.objects.visible_to(user).filter(
        scanner=scanner, metric=metric, expected_key=expected_key
    )
    found = [
        ControlSignal(numbers[row.signalled_by_id], row) for row in rows if row.signalled_by_id in numbers
    ]
    return tuple(sorted(found, key=lambda signal: (signal.number, str(signal.alert.pk))))
