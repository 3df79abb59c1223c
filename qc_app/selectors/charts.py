"""What the pages' figures and charts need beyond the dashboard's selectors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, OuterRef
from django.db.models.functions import TruncWeek

from qc_app.metrics.profile import Band, ThresholdRule
from qc_app.metrics.registry import METRICS, MetricDefinition
from qc_app.models import DriftAlert, QCOutcome
from qc_app.protocol.model import ExpectedSeries
from qc_app.selectors.next_steps import planned_visits
from qc_app.selectors.scorecard import SiteScorecard
from qc_app.services import versions
from qc_app.services.drift import MONITORED
from qc_app.services.judgement import profile_spec, protocol_spec
from qc_app.services.protocol import PROTOCOL
from qc_app.services.qc_profile import QC_PROFILE
from sites_app.models import QuarantinedFile, Series, Site, Subject, Submission, Trial, Visit


@dataclass(frozen=True)
class TrialFigures:
    """A trial in numbers; `visits_expected` counts subjects times the visits that need images."""

    subjects: int
    visits_received: int
    visits_expected: int
    series: int
    first_pass: int
    visits_finished: int
    open_deviations: int
    qc_failures: int
    quarantined_files: int

    @property
    def first_pass_share(self) -> float | None:
        return self.first_pass / self.visits_finished if self.visits_finished else None


def trial_figures(user: Any, trial: Trial, cards: Sequence[SiteScorecard]) -> TrialFigures:
    """Return the figures over the sites of `cards`, which are those that the user may see."""
    planned = planned_visits(trial)
    sites = [card.site_id for card in cards]
    subjects = Subject.objects.visible_to(user).filter(trial=trial, site__in=sites).count()
    received = Visit.objects.filter(site__in=sites, definition__in=planned).filter(
        Exists(Series.objects.filter(visit=OuterRef("pk"), instance_count__gt=0))
    )
    held = QuarantinedFile.objects.filter(site__in=sites, state=QuarantinedFile.State.HELD)
    return TrialFigures(
        subjects,
        received.count(),
        subjects * len(planned),
        sum(card.series_received for card in cards),
        sum(card.first_pass for card in cards),
        sum(card.visits for card in cards),
        sum(card.open_deviation_count for card in cards),
        sum(card.qc_outcomes[QCOutcome.FAIL] for card in cards),
        held.count(),
    )


@dataclass(frozen=True)
class SubmissionWeek:
    """The submissions that a site opened in the week from `monday` on, by state."""

    monday: date
    states: Mapping[str, int]


def submission_weeks(site: Site) -> tuple[SubmissionWeek, ...]:
    """Return every week from the first submission to the last; the caller has checked the site's visibility."""
    rows = (
        Submission.objects.filter(site=site)
        .order_by()
        .annotate(week=TruncWeek("created_at"))
        .values_list("week", "state")
        .annotate(number=Count("pk"))
    )
    weeks: dict[date, Counter[str]] = defaultdict(Counter)
    for week, state, number in rows:
        weeks[week.date()][state] += number
    if not weeks:
        return ()
    first, last = min(weeks), max(weeks)
    mondays = (first + timedelta(weeks=number) for number in range((last - first).days // 7 + 1))
    return tuple(SubmissionWeek(monday, dict(weeks[monday])) for monday in mondays)


@dataclass(frozen=True)
class MetricChoice:
    """A metric of an expected series, and whether the QC profile in force has a rule for it."""

    definition: MetricDefinition
    judged: bool


def expected_series(trial: Trial) -> tuple[ExpectedSeries, ...]:
    """Return what the protocol in force expects; () where none is locked."""
    protocol = versions.in_force(PROTOCOL, trial.pk)
    return protocol_spec(protocol).series if protocol is not None else ()


def metric_choices(trial: Trial, series: ExpectedSeries) -> tuple[MetricChoice, ...]:
    """Return the metrics of a series' modality, those that the QC profile judges first."""
    rules = {rule.metric for rule in quality_rules(trial, series.modality, series.key)}
    found = [item for item in METRICS.values() if series.modality in item.modalities]
    choices = [MetricChoice(item, item.name in rules) for item in found]
    return tuple(sorted(choices, key=lambda choice: not choice.judged))


def quality_rules(trial: Trial, modality: str, expected_key: str) -> tuple[ThresholdRule, ...]:
    """Return the rules of the QC profile in force for a series; () where none is locked."""
    profile = versions.in_force(QC_PROFILE, trial.pk)
    return profile_spec(profile).rules(modality, expected_key) if profile is not None else ()


@dataclass(frozen=True)
class Bounds:
    """The QC bounds of a metric; None where the profile in force sets none."""

    warn: Band | None
    fail: Band | None

    def lines(self) -> tuple[tuple[str, float], ...]:
        """Return (outcome beyond it, value) for every bound."""
        pairs = (("warn", self.warn), ("fail", self.fail))
        return tuple(
            (outcome, side)
            for outcome, band in pairs
            if band is not None
            for side in (band.low, band.high)
            if side is not None
        )


def default_metric(choices: Sequence[MetricChoice]) -> str:
    """Return the metric to show first: one that the drift watch follows, with bounds where there is one."""
    ordered = sorted(choices, key=lambda choice: choice.definition.name not in MONITORED)
    return ordered[0].definition.name


def bounds_of(trial: Trial, series: ExpectedSeries, metric: str) -> Bounds:
    for rule in quality_rules(trial, series.modality, series.key):
        if rule.metric == metric:
            return Bounds(rule.warn, rule.fail)
    return Bounds(None, None)


@dataclass(frozen=True)
class AlertPoint:
    """A drift alert at the series that raised it."""

    id: UUID
    scanner_id: UUID
    series_id: UUID
    received_at: datetime
    state: str
    detail: str


def alert_points(
    user: Any, trial: Trial, *, metric: str, expected_key: str
) -> dict[UUID, tuple[AlertPoint, ...]]:
    """Return the drift alerts of a metric by scanner, oldest first."""
    rows = (
        DriftAlert.objects.visible_to(user)
        .filter(trial=trial, metric=metric, expected_key=expected_key)
        .select_related("signalled_by")
        .order_by("signalled_by__received_at", "pk")
    )
    found: dict[UUID, list[AlertPoint]] = defaultdict(list)
    for row in rows:
        found[row.scanner_id].append(
            AlertPoint(
                row.pk,
                row.scanner_id,
                row.signalled_by_id,
                row.signalled_by.received_at,
                row.state,
                row.detail,
            )
        )
    return {scanner: tuple(points) for scanner, points in found.items()}
