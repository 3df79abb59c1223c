"""The judgement of a whole visit: expected series missing or too many, and its date window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hub.core.audit.services import record
from qc_app.models import Protocol, SeriesCheck, VersionState, VisitCheck
from qc_app.protocol.evaluation import evaluate_visit
from qc_app.protocol.model import COMPLIANT, DEVIANT, NOT_EVALUABLE, Verdict
from qc_app.services.findings import Changes, Target, sync_deviations
from qc_app.services.judgement import protocol_spec
from qc_app.services.shapes import Json, protocol_outcome, verdict_json
from sites_app.models import Series, SeriesState, Submission, SubmissionState, Visit, VisitDefinition

VISIT_WINDOW = "visit_window"
_UNDER_WAY = (SubmissionState.RECEIVED, SubmissionState.PROCESSING)
# A failed submission stored nothing that could be missed; the site is told by its state.
_FINISHED = (SubmissionState.ACCEPTED, SubmissionState.ACCEPTED_WITH_REJECTIONS, SubmissionState.QUARANTINED)


def lock_visit(visit_id: UUID) -> Visit:
    """Return the visit, locked until the transaction ends: judgements of one visit are written one by one."""
    return (
        Visit.objects.select_for_update(no_key=True, of=("self",))
        .select_related("definition")
        .get(pk=visit_id)
    )


def judge_visit(*, visit: Visit, protocol: Protocol | None) -> Changes:
    """Judge a locked visit if all of it has been received and checked; otherwise leave it for later.

    Call inside a transaction that holds `lock_visit`.
    """
    changes = Changes()
    if not _ready(visit):
        return changes
    verdicts = _verdicts(visit, protocol)
    check, created = VisitCheck.objects.get_or_create(
        visit=visit,
        defaults={"trial_id": visit.trial_id, "site_id": visit.site_id, "protocol_outcome": NOT_EVALUABLE},
    )
    unchanged = not created and check.verdicts == verdicts and check.protocol == protocol
    if protocol is not None:
        # A visit whose date cannot be placed yet is not evaluable, but nobody departed from the protocol.
        counted = [v for v in verdicts if v["rule"] != VISIT_WINDOW or v["outcome"] == DEVIANT]
        sync_deviations(about=Target(visit), protocol=protocol, verdicts=counted, changes=changes)
    if unchanged and not changes:
        return changes
    check.protocol, check.verdicts, check.protocol_outcome = protocol, verdicts, protocol_outcome(verdicts)
    check.protocol_digest = protocol.digest if protocol is not None else ""
    check.save()
    record(
        actor=None,
        action="visit.checked",
        obj=check,
        new={"visit": str(visit.pk), "outcome": check.protocol_outcome, "protocol": check.protocol_digest,
             **changes.as_json()},
    )  # fmt: skip
    return changes


def protocol_in_force(trial_id: UUID) -> Protocol | None:
    return Protocol.objects.filter(trial_id=trial_id, state=VersionState.LOCKED).first()


def received_counts(visit: Visit) -> Mapping[str, int]:
    """Return how many series stand for each expected series; replaced ones do not count."""
    keys = SeriesCheck.objects.filter(
        series__visit=visit, is_current=True, replaced_by=None, series__state=SeriesState.CHECKED
    ).exclude(expected_key="")
    return Counter(keys.order_by().values_list("expected_key", flat=True))


def _ready(visit: Visit) -> bool:
    submissions = set(Submission.objects.filter(visit=visit).order_by().values_list("state", flat=True))
    if not submissions & set(_FINISHED) or submissions & set(_UNDER_WAY):
        return False
    return not Series.objects.filter(
        visit=visit, state__in=(SeriesState.RECEIVED, SeriesState.CHECKING), instance_count__gt=0
    ).exists()


def _verdicts(visit: Visit, protocol: Protocol | None) -> list[Json]:
    if protocol is None:
        return []
    spec = protocol_spec(protocol)
    counts = received_counts(visit)
    found = [*evaluate_visit(spec, visit.definition.code, counts), _window_verdict(visit)]
    return [verdict_json(verdict, protocol) for verdict in found]


def _window_verdict(visit: Visit) -> Verdict:
    definition = visit.definition
    low = definition.target_day - definition.window_before_days
    high = definition.target_day + definition.window_after_days
    expected: dict[str, Any] = {"kind": "range", "min": low, "max": high, "text": f"day {low} to day {high}"}
    day, reason = visit_day(visit)
    if day is None:
        outcome, detail, action = NOT_EVALUABLE, reason, ""
    elif low <= day <= high:
        outcome, action = COMPLIANT, ""
        detail = f"The visit was on day {day}; its window is day {low} to day {high}."
    else:
        outcome = DEVIANT
        detail = f"The visit was on day {day}; its window is day {low} to day {high}."
        action = "Check that the images were sent for the right visit and subject; if so, explain the date."
    return Verdict(
        rule=VISIT_WINDOW,
        parameter="StudyDate",
        label="Visit window",
        expected=expected,
        observed=day,
        unit="d",
        source="(0008,0020)",
        outcome=outcome,
        severity="minor",
        detail=detail,
        action=action,
    )


def visit_day(visit: Visit) -> tuple[int | None, str]:
    """Return the day of a visit in the trial's calendar, or None and why it cannot be said.

    Days count from the subject's first planned visit (the definition with the lowest target day). Dates are
    shifted by one offset per subject, which leaves differences as they are.
    """
    if visit.performed_on is None:
        return None, "The images of this visit carry no study date."
    first_day = min(
        VisitDefinition.objects.filter(trial_id=visit.trial_id).values_list("target_day", flat=True)
    )
    anchor = (
        Visit.objects.filter(subject_id=visit.subject_id, definition__target_day=first_day)
        .exclude(performed_on=None)
        .order_by("definition__position", "definition__code")
        .first()
    )
    if anchor is None or anchor.performed_on is None:
        return None, "The date of the subject's first visit is not known yet; days count from it."
    return (visit.performed_on - anchor.performed_on).days + first_day, ""


def other_visits(visit: Visit) -> list[UUID]:
    """Return the subject's other judged visits: their windows depend on the date of the first one."""
    first_day = min(
        VisitDefinition.objects.filter(trial_id=visit.trial_id).values_list("target_day", flat=True)
    )
    if visit.definition.target_day != first_day:
        return []
    judged = VisitCheck.objects.filter(visit__subject_id=visit.subject_id).exclude(visit=visit)
    return list(judged.order_by("visit_id").values_list("visit_id", flat=True))
