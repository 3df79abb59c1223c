"""Checking a received series: judge it outside a transaction, write the result in one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from hub.core.storage.blobs import put_blob
from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.registry import METRICS_VERSION
from qc_app.models import MetricValue, Protocol, QCOutcome, QCProfile, SeriesCheck, VersionState
from qc_app.permissions import RECHECKERS
from qc_app.protocol.model import DEVIANT, ENGINE_VERSION, NOT_EVALUABLE
from qc_app.services.findings import Changes, Target, apply_replacements, sync_deviations
from qc_app.services.instances import read_instances
from qc_app.services.judgement import (
    ProtocolJudgement,
    QualityJudgement,
    judge_protocol,
    measure_series,
    protocol_spec,
)
from qc_app.services.shapes import worst_severity
from qc_app.services.visit_check import judge_visit, lock_visit, other_visits, protocol_in_force
from sites_app.models import LockState, Series, SeriesState, Trial, Visit
from sites_app.models.series import SERIES_TRANSITIONS
from sites_app.permissions import require_role

log = structlog.get_logger(__name__)
# How often a series may receive further instances while it is being checked before the job gives up.
_MAX_ROUNDS = 5
_UNFINISHED = (SeriesState.RECEIVED, SeriesState.CHECKING)


def check_series(*, series_id: UUID) -> None:
    """Judge a series that waits for it and write verdicts, metrics, deviations and state; idempotent.

    Raises Conflict where the series keeps growing while it is checked.
    """
    for _ in range(_MAX_ROUNDS):
        series = _claim(series_id)
        if series is None:
            return
        protocol = protocol_in_force(series.trial_id)
        profile = QCProfile.objects.filter(trial_id=series.trial_id, state=VersionState.LOCKED).first()
        judged = judge_protocol(protocol, series.observation, series.visit.definition.code)
        quality = _measure(series, profile, judged.expected_key)
        preview = put_blob(quality.preview) if quality.preview else ""
        if _write(series, protocol, profile, judged, quality, preview):
            return
    raise Conflict("Images keep arriving for this series while it is checked. It is checked again shortly.")


def _claim(series_id: UUID) -> Series | None:
    """Set a waiting series to checking and return it; None where there is nothing to do."""
    # No join: where another worker has just finished, PostgreSQL asks the row itself again, not a subquery.
    locked = Trial.objects.filter(lock_state=LockState.LOCKED).values("pk")
    claimed = (
        Series.objects.filter(pk=series_id, state__in=_UNFINISHED, instance_count__gt=0)
        .exclude(trial_id__in=locked)
        .update(state=SeriesState.CHECKING)
    )
    if not claimed:
        return None
    return Series.objects.select_related("trial", "visit__definition", "submission").get(pk=series_id)


def _measure(series: Series, profile: QCProfile | None, expected_key: str) -> QualityJudgement:
    try:
        instances = read_instances(series)
    except PixelsUnavailable as problem:
        return QualityJudgement((), QCOutcome.NOT_EVALUABLE.value, problem.detail[:600])
    return measure_series(instances, profile, series.modality, expected_key)


@transaction.atomic
def _write(
    series: Series,
    protocol: Protocol | None,
    profile: QCProfile | None,
    judged: ProtocolJudgement,
    quality: QualityJudgement,
    preview: str,
) -> bool:
    """Write the judgement; False where the series changed meanwhile and has to be judged again."""
    visit = lock_visit(series.visit_id)
    current = Series.objects.select_for_update(no_key=True, of=("self",)).get(pk=series.pk)
    if current.state == SeriesState.CHECKED:
        return True
    if current.state != SeriesState.CHECKING or current.instance_count != series.instance_count:
        return False
    check = _store_check(current, protocol, profile, judged, quality, preview)
    _store_metrics(current, check)
    current.state, current.reason, current.checked_at = SeriesState.CHECKED, "", timezone.now()
    current.save(update_fields=["state", "reason", "checked_at"])
    changes = Changes()
    if protocol is not None:
        about = Target(visit, current, judged.expected_key)
        sync_deviations(about=about, protocol=protocol, verdicts=judged.verdicts, changes=changes)
        expected = protocol_spec(protocol).get(judged.expected_key)
        if expected is not None:
            apply_replacements(visit=visit, expected=expected, protocol=protocol, changes=changes)
    _record(current, check, changes)
    judge_visit(visit=visit, protocol=protocol)
    return True


def _store_check(
    series: Series,
    protocol: Protocol | None,
    profile: QCProfile | None,
    judged: ProtocolJudgement,
    quality: QualityJudgement,
    preview: str,
) -> SeriesCheck:
    SeriesCheck.objects.filter(series=series, is_current=True).update(is_current=False)
    outcomes = [verdict["outcome"] for verdict in judged.verdicts]
    return SeriesCheck.objects.create(
        trial_id=series.trial_id,
        site_id=series.site_id,
        series=series,
        protocol=protocol,
        protocol_digest=protocol.digest if protocol is not None else "",
        qc_profile=profile,
        expected_key=judged.expected_key,
        match=judged.match,
        verdicts=list(judged.verdicts),
        protocol_outcome=judged.outcome,
        deviant_count=outcomes.count(DEVIANT),
        not_evaluable_count=outcomes.count(NOT_EVALUABLE),
        worst_severity=worst_severity(judged.verdicts),
        metrics=list(quality.metrics),
        qc_outcome=quality.outcome,
        qc_reason=quality.reason,
        preview_digest=preview,
        engine={"protocol": ENGINE_VERSION, "metrics": METRICS_VERSION},
    )


def _store_metrics(series: Series, check: SeriesCheck) -> None:
    MetricValue.objects.filter(series=series).delete()
    MetricValue.objects.bulk_create(
        MetricValue(
            trial_id=series.trial_id,
            site_id=series.site_id,
            series=series,
            scanner_id=series.scanner_id,
            expected_key=check.expected_key,
            name=metric["name"],
            unit=metric["unit"],
            value=metric["value"],
            outcome=metric["outcome"],
            acquired_on=series.acquired_on,
            received_at=series.received_at,
        )
        for metric in check.metrics
    )


def _record(series: Series, check: SeriesCheck, changes: Changes) -> None:
    record(
        actor=None,
        action="series.checked",
        obj=series,
        new={
            "check": str(check.pk),
            "protocol": check.protocol_digest,
            "qc_profile": check.qc_profile.digest if check.qc_profile else "",
            "expected_key": check.expected_key,
            "protocol_outcome": check.protocol_outcome,
            "qc_outcome": check.qc_outcome,
            "verdicts": len(check.verdicts),
            "metrics": len(check.metrics),
            **changes.as_json(),
        },
    )
    log.info(
        "series.checked", series=str(series.pk), outcome=check.protocol_outcome, quality=check.qc_outcome
    )


def check_visit(*, visit_id: UUID) -> None:
    """Judge a visit after a submission for it has finished, and the windows that count from its date."""
    visit = Visit.objects.select_related("trial", "definition").get(pk=visit_id)
    if visit.trial.lock_state == LockState.LOCKED:
        return
    protocol = protocol_in_force(visit.trial_id)
    for identifier in (visit_id, *other_visits(visit)):
        with transaction.atomic():
            judge_visit(visit=lock_visit(identifier), protocol=protocol)


def fail_series(*, series_id: UUID, reason: str) -> None:
    """Say that the check of a series failed, and judge its visit without it."""
    visit_id = Series.objects.values_list("visit_id", flat=True).get(pk=series_id)
    with transaction.atomic():
        visit = lock_visit(visit_id)
        series = Series.objects.select_for_update(no_key=True, of=("self",)).get(pk=series_id)
        if series.state not in _UNFINISHED:
            return
        series.state, series.reason = SeriesState.FAILED, reason[:1000]
        series.save(update_fields=["state", "reason"])
        record(actor=None, action="series.check_failed", obj=series, reason=reason)
        judge_visit(visit=visit, protocol=protocol_in_force(visit.trial_id))


def unchecked_series() -> QuerySet[Series]:
    """Return the series that wait to be checked in trials that take changes."""
    received = Series.objects.filter(state__in=_UNFINISHED, instance_count__gt=0)
    return received.exclude(trial__lock_state=LockState.LOCKED)


def request_recheck(*, actor: Any, series: Series, reason: str) -> Series:
    """Have a series judged again, by the versions in force now, at a person's wish and with the reason.

    Raises NotAllowed, InvalidInput without a reason, Conflict where it is being checked already.
    """
    require_role(actor, RECHECKERS, series.trial_id, series.site_id, "have a series checked again")
    if not reason.strip():
        raise InvalidInput("Give the reason for checking this series again.")
    with transaction.atomic():
        row = Series.objects.select_for_update(no_key=True, of=("self",)).get(pk=series.pk)
        if SeriesState.RECEIVED not in SERIES_TRANSITIONS[row.state] or row.state == SeriesState.CHECKING:
            raise Conflict(f"This series is {row.state}; it is checked without being asked to.")
        old, row.state, row.reason = row.state, SeriesState.RECEIVED, ""
        row.save(update_fields=["state", "reason"])
        record(
            actor=actor,
            action="series.recheck_requested",
            obj=row,
            old={"state": old},
            new={"state": row.state},
            reason=reason.strip()[:1000],
        )
    return row
