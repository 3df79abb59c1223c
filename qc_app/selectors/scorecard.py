"""Sites beside each other, and where deviations come from."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Aggregate, Count, DurationField, Exists, F, OuterRef, Q, Subquery

from qc_app.models import (
    Deviation,
    DeviationState,
    ProtocolOutcome,
    QCOutcome,
    Query,
    QueryState,
    SeriesCheck,
    Severity,
)
from qc_app.services.findings import ACTIVE
from sites_app.models import Series, Site, Submission, SubmissionState, Trial, Visit

_FINISHED = (
    SubmissionState.ACCEPTED,
    SubmissionState.ACCEPTED_WITH_REJECTIONS,
    SubmissionState.QUARANTINED,
    SubmissionState.FAILED,
)


class Median(Aggregate):
    """The continuous median of an interval expression."""

    function = "PERCENTILE_CONT"
    name = "median"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = DurationField()


@dataclass(frozen=True)
class SiteScorecard:
    """How one site does.

    `visits` have a finished submission; `first_pass` of them were accepted as first sent: no file refused and no
    deviation but rejected ones. Medians are None where there is nothing to take one of.
    """

    site_id: UUID
    site_code: str
    site_name: str
    submissions: int
    series_received: int
    visits: int
    first_pass: int
    open_deviations: dict[str, int]
    deviations: int
    open_queries: int
    protocol_outcomes: dict[str, int]
    qc_outcomes: dict[str, int]
    check_turnaround_s: float | None
    deviation_turnaround_h: float | None

    @property
    def first_pass_percent(self) -> float | None:
        return 100.0 * self.first_pass / self.visits if self.visits else None

    @property
    def open_deviation_count(self) -> int:
        return sum(self.open_deviations.values())

    @property
    def qc_pass_percent(self) -> float | None:
        total = sum(self.qc_outcomes.values())
        return 100.0 * self.qc_outcomes.get(QCOutcome.PASS, 0) / total if total else None


def site_scorecards(user: Any, trial: Trial, *, site: Site | None = None) -> tuple[SiteScorecard, ...]:
    """Return the scorecard of each site that the user may see, in the order of site codes."""
    sites = Site.objects.visible_to(user).filter(trial=trial)
    if site is not None:
        sites = sites.filter(pk=site.pk)
    shown = list(sites.order_by("code"))
    ids = [row.pk for row in shown]
    submissions = _counts(Submission.objects.filter(site__in=ids))
    series, check_medians = _series(ids)
    visits, first_pass = _visits(ids)
    deviations = _grouped(Deviation.objects.filter(site__in=ids), "state", "severity")
    deviation_medians = _deviation_medians(ids)
    queries = _counts(Query.objects.filter(site__in=ids).exclude(state=QueryState.CLOSED))
    checks = _grouped(
        SeriesCheck.objects.filter(site__in=ids, is_current=True, replaced_by=None),
        "protocol_outcome",
        "qc_outcome",
    )
    return tuple(
        SiteScorecard(
            row.pk,
            row.code,
            row.name,
            submissions.get(row.pk, 0),
            series.get(row.pk, 0),
            visits.get(row.pk, 0),
            first_pass.get(row.pk, 0),
            _total(deviations[row.pk], 1, Severity.values, only=set(ACTIVE)),
            deviations[row.pk].total(),
            queries.get(row.pk, 0),
            _total(checks[row.pk], 0, ProtocolOutcome.values),
            _total(checks[row.pk], 1, QCOutcome.values),
            check_medians.get(row.pk),
            deviation_medians.get(row.pk),
        )
        for row in shown
    )


def _counts(rows: Any) -> dict[UUID, int]:
    return dict(rows.order_by().values_list("site_id").annotate(number=Count("pk")))


def _grouped(rows: Any, first: str, second: str) -> dict[UUID, Counter[tuple[str, str]]]:
    found: dict[UUID, Counter[tuple[str, str]]] = defaultdict(Counter)
    for site_id, one, two, number in (
        rows.order_by().values_list("site_id", first, second).annotate(number=Count("pk"))
    ):
        found[site_id][(one, two)] += number
    return found


def _total(
    counter: Counter[tuple[str, str]], place: int, names: list[str], only: set[str] | None = None
) -> dict[str, int]:
    return {
        name: sum(
            number
            for key, number in counter.items()
            if key[place] == name and (only is None or key[1 - place] in only)
        )
        for name in names
    }


def _series(ids: list[UUID]) -> tuple[dict[UUID, int], dict[UUID, float]]:
    rows = (
        Series.objects.filter(site__in=ids, instance_count__gt=0)
        .order_by()
        .values_list("site_id")
        .annotate(
            number=Count("pk"),
            median=Median(F("checked_at") - F("received_at"), filter=Q(checked_at__isnull=False)),
        )
    )
    found = list(rows)
    medians = {site: median.total_seconds() for site, _, median in found if median is not None}
    return {site: number for site, number, _ in found}, medians


def _deviation_medians(ids: list[UUID]) -> dict[UUID, float]:
    rows = (
        Deviation.objects.filter(site__in=ids, closed_at__isnull=False)
        .order_by()
        .values_list("site_id")
        .annotate(median=Median(F("closed_at") - F("opened_at")))
    )
    return {site: median.total_seconds() / 3600 for site, median in rows}


def _visits(ids: list[UUID]) -> tuple[dict[UUID, int], dict[UUID, int]]:
    first = Submission.objects.filter(visit=OuterRef("pk"), state__in=_FINISHED).order_by("created_at", "pk")
    departed = Deviation.objects.filter(visit=OuterRef("pk")).exclude(state=DeviationState.REJECTED)
    rows = (
        Visit.objects.filter(site__in=ids)
        .annotate(first_state=Subquery(first.values("state")[:1]), departed=Exists(departed))
        .exclude(first_state=None)
        .order_by()
        .values_list("site_id")
        .annotate(
            number=Count("pk"),
            passed=Count("pk", filter=Q(first_state=SubmissionState.ACCEPTED, departed=False)),
        )
    )
    found = list(rows)
    return {site: number for site, number, _ in found}, {site: passed for site, _, passed in found}


@dataclass(frozen=True)
class ParetoBar:
    """How often one parameter departs, at which sites, and the share of all up to and with this bar (%)."""

    parameter: str
    label: str
    count: int
    open: int
    by_site: dict[str, int]
    cumulative_percent: float


def deviation_pareto(user: Any, trial: Trial, *, site: Site | None = None) -> tuple[ParetoBar, ...]:
    """Return the parameters by how many deviations they have, most first; rejected deviations do not count."""
    rows = Deviation.objects.visible_to(user).filter(trial=trial).exclude(state=DeviationState.REJECTED)
    if site is not None:
        rows = rows.filter(site=site)
    grouped = (
        rows.order_by()
        .values_list("parameter", "label", "site__code")
        .annotate(number=Count("pk"), still_open=Count("pk", filter=Q(state__in=ACTIVE)))
    )
    counts: Counter[tuple[str, str]] = Counter()
    still_open: Counter[tuple[str, str]] = Counter()
    by_site: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for parameter, label, code, number, active in grouped:
        counts[(parameter, label)] += number
        still_open[(parameter, label)] += active
        by_site[(parameter, label)][code] = number
    total, running = counts.total(), 0
    bars = []
    for key, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        running += number
        sites = dict(sorted(by_site[key].items()))
        bars.append(ParetoBar(*key, number, still_open[key], sites, 100.0 * running / total))
    return tuple(bars)
