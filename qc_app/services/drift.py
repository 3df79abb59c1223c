"""Drift of a scanner's metrics, looked at after each check of one of its series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from qc_app.metrics import drift
from qc_app.metrics.registry import ANY, METRICS
from qc_app.models import ChangeEvent, DriftAlert, MetricValue, SeriesCheck
from qc_app.permissions import MONITORING_REVIEWERS
from sites_app.models import LockState, ScannerEpoch, Series, SeriesState
from sites_app.permissions import require_role

# Metrics of the acquisition, not of the scanner, and those without a better side, do not drift.
MONITORED = frozenset(
    name for name, metric in METRICS.items() if metric.better != "none" and metric.modalities != ANY
)
# Runs rules are for the charts that people read; alone they alarm too often to raise an alert.
ALERTING = frozenset({"1_3s", "ewma", "cusum", "prediction"})
FEWEST_VALUES = drift.PREDICTION_SCANS + 1
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Point:
    """One value of a metric on a scanner: from which series, in which epoch, received when."""

    series_id: UUID
    value: float | None
    epoch: int
    received_at: datetime


def points_of(*, scanner_id: UUID, expected_key: str, names: Sequence[str]) -> dict[str, list[Point]]:
    """Return each metric's values in the order of the scanner's epochs and of receipt.

    Dates of acquisition are shifted by another offset for each subject, so they give no order between subjects.
    """
    rows = (
        MetricValue.objects.filter(
            scanner_id=scanner_id,
            expected_key=expected_key,
            name__in=names,
            series__state=SeriesState.CHECKED,
        )
        .order_by("series__scanner_epoch__number", "received_at", "series_id")
        .values_list("name", "series_id", "value", "series__scanner_epoch__number", "received_at")
    )
    points: dict[str, list[Point]] = defaultdict(list)
    for name, series_id, value, epoch, received_at in rows:
        points[name].append(Point(series_id, value, epoch or 0, received_at))
    return points


def assess_points(points: Sequence[Point]) -> drift.DriftAssessment:
    """Chart the points in their order; a new scanner epoch begins a new baseline."""
    times = [_ORIGIN + timedelta(minutes=place) for place in range(len(points))]
    changes = [
        drift.ChangePoint(times[place + 1], f"epoch {later.epoch}")
        for place, (earlier, later) in enumerate(pairwise(points))
        if later.epoch != earlier.epoch
    ]
    return drift.assess([point.value for point in points], times, changes)


def assess_series(*, series_id: UUID) -> list[DriftAlert]:
    """Look at every monitored metric of the series' scanner and open an alert for each new signal; idempotent."""
    check = (
        SeriesCheck.objects.filter(series_id=series_id, is_current=True)
        .select_related("series", "series__trial")
        .first()
    )
    if check is None or check.series.scanner_id is None or not check.expected_key:
        return []
    if check.series.trial.lock_state == LockState.LOCKED:
        return []
    names = sorted({metric["name"] for metric in check.metrics} & MONITORED)
    measured = points_of(scanner_id=check.series.scanner_id, expected_key=check.expected_key, names=names)
    opened: list[DriftAlert] = []
    for name, points in measured.items():
        if sum(point.value is not None for point in points) >= FEWEST_VALUES:
            opened += _open_alerts(check, name, points)
    return opened


def _open_alerts(check: SeriesCheck, name: str, points: Sequence[Point]) -> list[DriftAlert]:
    assessment = assess_points(points)
    newest = assessment.segments[-1].number if assessment.segments else -1
    signals: dict[str, drift.DriftAlert] = {}
    for signal in assessment.alerts:
        if signal.rule in ALERTING and signal.segment == newest:
            signals[signal.rule] = signal
    if not signals:
        return []
    known = DriftAlert.objects.filter(
        scanner_id=check.series.scanner_id, expected_key=check.expected_key, metric=name, chart__in=signals
    )
    opened: list[DriftAlert] = []
    with transaction.atomic():
        held = {(row.chart, row.state): row for row in known}
        reported = {(row.chart, row.signalled_by_id) for row in known}
        for rule, signal in signals.items():
            point = points[signal.index]
            if (rule, DriftAlert.State.OPEN) not in held and (rule, point.series_id) not in reported:
                opened += _open_alert(check.series, check.expected_key, name, signal, point)
    return opened


def _open_alert(
    series: Series, expected_key: str, name: str, signal: drift.DriftAlert, point: Point
) -> list[DriftAlert]:
    evidence: dict[str, Any] = {**asdict(signal), "time": point.received_at.isoformat()}
    row, created = DriftAlert.objects.get_or_create(
        scanner_id=series.scanner_id,
        expected_key=expected_key,
        metric=name,
        chart=signal.rule,
        state=DriftAlert.State.OPEN,
        defaults={
            "trial_id": series.trial_id,
            "site_id": series.site_id,
            "direction": "up" if signal.statistic > 0 else "down",
            "signalled_by_id": point.series_id,
            "detail": f"{METRICS[name].label} of {_with_unit(signal.value, name)}: {signal.detail}."[:600],
            "evidence": evidence,
        },
    )
    if created:
        record(actor=None, action="drift_alert.opened", obj=row, new={"metric": name, "chart": signal.rule})
    return [row] if created else []


def _with_unit(value: float, name: str) -> str:
    unit = METRICS[name].unit
    return f"{value:.4g}" if unit in {"", "1"} else f"{value:.4g} {unit}"


def review(*, actor: Any, row: DriftAlert | ChangeEvent, comment: str) -> DriftAlert | ChangeEvent:
    """Say that a person has looked at a drift alert or a scanner change, with a comment.

    Raises NotAllowed, InvalidInput without a comment, Conflict where it was reviewed already.
    """
    noun = row._meta.verbose_name
    require_role(actor, MONITORING_REVIEWERS, row.trial_id, row.site_id, f"review a {noun}")
    if not comment.strip():
        raise InvalidInput(
            f"Say in a comment what you found about this {noun}.",
            errors=[{"field": "comment", "message": "Say what you found."}],
        )
    with transaction.atomic():
        current = type(row).objects.select_for_update(no_key=True, of=("self",)).get(pk=row.pk)
        if current.state != "open":
            raise Conflict(f"This {noun} was reviewed already.")
        current.state, current.comment = "reviewed", comment.strip()[:1000]
        current.save(update_fields=["state", "comment"])
        record(
            actor=actor,
            action=f"{current._meta.model_name}.reviewed",
            obj=current,
            old={"state": "open"},
            new={"state": "reviewed"},
            reason=current.comment,
        )
    return current


def note_scanner_change(
    *, epoch_id: UUID, previous_epoch_id: UUID | None, series_id: UUID | None
) -> ChangeEvent | None:
    """Record that a scanner began a new epoch; None for its first one. Idempotent."""
    if previous_epoch_id is None:
        return None
    epoch = ScannerEpoch.objects.get(pk=epoch_id)
    previous = ScannerEpoch.objects.get(pk=previous_epoch_id)
    row, created = ChangeEvent.objects.get_or_create(
        epoch=epoch,
        defaults={
            "trial_id": epoch.trial_id,
            "site_id": epoch.site_id,
            "scanner_id": epoch.scanner_id,
            "old": previous.software_versions or "not recorded",
            "new": epoch.software_versions or "not recorded",
            "first_series_id": series_id,
            "occurred_on": epoch.first_seen_on or timezone.now().date(),
        },
    )
    if created:
        record(
            actor=None,
            action="change_event.opened",
            obj=row,
            old={"software_versions": row.old},
            new={"software_versions": row.new},
        )
    return row
