"""From verdicts to deviations and system queries: open what is new, close what no longer holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils import timezone

from qc_app.models import (
    Deviation,
    DeviationState,
    Protocol,
    Query,
    QueryState,
    SeriesCheck,
    Severity,
)
from qc_app.protocol.model import COMPLIANT, ExpectedSeries
from qc_app.services.shapes import Json
from qc_app.services.waivers import apply_waivers, is_expired, is_same_finding
from sites_app.models import Series, Visit

ACTIVE = (DeviationState.OPEN, DeviationState.ACKNOWLEDGED)
QUERIED = frozenset({Severity.MAJOR, Severity.CRITICAL})
NO_LONGER_FOUND = "Checked again: this is no longer found."


@dataclass
class Changes:
    """What one act opened and closed, by id; it goes into the act's audit event."""

    opened: list[UUID] = field(default_factory=list)
    resolved: list[UUID] = field(default_factory=list)
    queries_opened: list[UUID] = field(default_factory=list)
    queries_closed: list[UUID] = field(default_factory=list)
    replaced: list[UUID] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.opened or self.resolved or self.queries_opened or self.queries_closed or self.replaced
        )

    def as_json(self) -> Json:
        return {name: [str(item) for item in getattr(self, name)] for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Target:
    """What deviations are about: a series, or (series None) a visit as a whole."""

    visit: Visit
    series: Series | None = None
    expected_key: str = ""

    def rows(self) -> Any:
        if self.series is not None:
            return Deviation.objects.filter(series=self.series)
        return Deviation.objects.filter(visit=self.visit, series=None)

    def columns(self) -> dict[str, Any]:
        return {
            "trial_id": self.visit.trial_id,
            "site_id": self.visit.site_id,
            "subject_id": self.visit.subject_id,
            "visit_id": self.visit.pk,
            "series": self.series,
            "scanner_id": self.series.scanner_id if self.series is not None else None,
            "expected_key": self.expected_key,
        }


def sync_deviations(
    *, about: Target, protocol: Protocol, verdicts: Sequence[Mapping[str, Any]], changes: Changes
) -> None:
    """Make the deviations of a series or a visit agree with its verdicts.

    A person's decision (waived, rejected, resolved) stands as long as the finding is the same one.
    """
    found = _by_rule(verdicts)
    rows = list(about.rows().select_for_update(no_key=True, of=("self",)).order_by("opened_at"))
    active = {row.rule: row for row in rows if row.state in ACTIVE}
    decided = [row for row in rows if row.state not in ACTIVE]
    new: list[Deviation] = []
    changed: list[Deviation] = []
    for rule, verdict in found.items():
        if rule in active:
            changed += _updated(active[rule], verdict, protocol)
        elif not any(_still_decided(row, verdict) for row in decided):
            new.append(_deviation(about, verdict, protocol))
    Deviation.objects.bulk_update(changed, ["verdict", "detail", "action", "kind", "severity", "important",
                                            "protocol", "protocol_digest"])  # fmt: skip
    apply_waivers(new)
    Deviation.objects.bulk_create(new)
    changes.opened += [row.pk for row in new]
    changes.queries_opened += _raise_queries(new)
    resolve([row for rule, row in active.items() if rule not in found], NO_LONGER_FOUND, changes)


def _by_rule(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for verdict in verdicts:
        if verdict["outcome"] != COMPLIANT:
            found.setdefault(verdict["rule"], verdict)
    return found


def _important(severity: str) -> bool:
    return severity == Severity.CRITICAL


def _deviation(about: Target, verdict: Mapping[str, Any], protocol: Protocol) -> Deviation:
    return Deviation(
        **about.columns(),
        protocol=protocol,
        protocol_digest=protocol.digest,
        rule=verdict["rule"],
        parameter=verdict["parameter"],
        label=verdict["label"],
        kind=verdict["outcome"],
        severity=verdict["severity"],
        important=_important(verdict["severity"]),
        verdict=dict(verdict),
        detail=verdict["detail"][:1000],
        action=verdict["action"][:1000],
    )


def _updated(row: Deviation, verdict: Mapping[str, Any], protocol: Protocol) -> list[Deviation]:
    if row.verdict == verdict:
        return []
    row.verdict, row.kind, row.severity = dict(verdict), verdict["outcome"], verdict["severity"]
    row.detail, row.action = verdict["detail"][:1000], verdict["action"][:1000]
    row.important = _important(row.severity)
    row.protocol, row.protocol_digest = protocol, protocol.digest
    return [row]


def _still_decided(row: Deviation, verdict: Mapping[str, Any]) -> bool:
    """Whether a person closed this very finding, and a waiver of it has not run out."""
    if row.closed_by_id is None or row.rule != verdict["rule"] or not is_same_finding(row.verdict, verdict):
        return False
    return not (row.state == DeviationState.WAIVED and is_expired(row.waiver))


def _raise_queries(deviations: Iterable[Deviation]) -> list[UUID]:
    queries = [
        Query(
            trial_id=row.trial_id,
            site_id=row.site_id,
            subject_id=row.subject_id,
            visit_id=row.visit_id,
            series_id=row.series_id,
            deviation=row,
            title=f"{row.label}: {'not as the protocol wants' if row.kind == 'deviant' else 'could not be judged'}",
            text=f"{row.detail}\n\n{row.action}".strip(),
        )
        for row in deviations
        if row.severity in QUERIED and row.state == DeviationState.OPEN
    ]
    return [query.pk for query in Query.objects.bulk_create(queries)]


def resolve(
    rows: Sequence[Deviation], reason: str, changes: Changes, *, by_series: Series | None = None
) -> None:
    """Close deviations as resolved by the system, and their system queries that nobody has answered."""
    if not rows:
        return
    ids = [row.pk for row in rows]
    now = timezone.now()
    Deviation.objects.filter(pk__in=ids, state__in=ACTIVE).update(
        state=DeviationState.RESOLVED, reason=reason, resolved_by_series=by_series, closed_at=now
    )
    changes.resolved += ids
    changes.queries_closed += close_system_queries(ids, reason)


def close_system_queries(deviation_ids: Sequence[UUID], reason: str) -> list[UUID]:
    """Close the system queries about these deviations that are open; one that was answered stays for a person."""
    queries = Query.objects.select_for_update(no_key=True, of=("self",)).filter(
        deviation_id__in=deviation_ids, raised_by=None, state=QueryState.OPEN
    )
    ids = list(queries.values_list("pk", flat=True))
    Query.objects.filter(pk__in=ids).update(
        state=QueryState.CLOSED, closing_reason=reason, closed_at=timezone.now()
    )
    return ids


def apply_replacements(
    *, visit: Visit, expected: ExpectedSeries, protocol: Protocol, changes: Changes
) -> None:
    """Let compliant series take the place of others of their kind at the visit, beyond the number wanted.

    The oldest that is not compliant goes first; its open deviations are resolved with the link. Where the
    compliant one is no longer compliant, what it replaced stands again.
    """
    checks = list(
        SeriesCheck.objects.filter(series__visit=visit, is_current=True, expected_key=expected.key)
        .select_related("series")
        .order_by("series__received_at", "series_id")
    )
    successors = _successors(checks, expected.count.maximum or max(expected.count.minimum, 1))
    for check in checks:
        successor = successors.get(check.pk)
        if (successor.pk if successor else None) == check.replaced_by_id:
            continue
        check.replaced_by = successor
        check.save(update_fields=["replaced_by"])
        about = Target(visit, check.series, check.expected_key)
        if successor is None:
            sync_deviations(
                about=about, protocol=check.protocol or protocol, verdicts=check.verdicts, changes=changes
            )
            continue
        changes.replaced.append(check.series_id)
        received = f"{successor.received_at:%Y-%m-%d %H:%M} UTC"
        reason = f"Replaced by a compliant series of the same kind, received {received}."
        resolve(list(about.rows().filter(state__in=ACTIVE)), reason, changes, by_series=successor)


def _successors(checks: Sequence[SeriesCheck], wanted: int) -> dict[UUID, Series]:
    """Map the check of each replaced series to the newest compliant series that was not received before it."""
    compliant = [check.series for check in checks if check.protocol_outcome == COMPLIANT]
    surplus = len(checks) - wanted
    found: dict[UUID, Series] = {}
    for check in checks:
        if surplus <= len(found):
            break
        later = [
            series
            for series in compliant
            if series.received_at >= check.series.received_at
            or series.submission_id == check.series.submission_id
        ]
        if check.protocol_outcome != COMPLIANT and later:
            found[check.pk] = later[-1]
    return found
