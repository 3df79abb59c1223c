"""What a site has to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Q

from qc_app.models import Deviation, DeviationState, Query, QueryState
from qc_app.services.judgement import protocol_spec
from qc_app.services.visit_check import protocol_in_force
from sites_app.models import (
    QuarantinedFile,
    Series,
    SeriesState,
    Subject,
    Submission,
    SubmissionState,
    Trial,
    Visit,
    VisitDefinition,
)

LISTED = 20


@dataclass(frozen=True)
class ExpectedVisit:
    """The next planned visit of a subject without images, in the order of the trial's calendar."""

    subject_id: UUID
    subject_code: str
    site_code: str
    visit_code: str
    visit_title: str


@dataclass(frozen=True)
class QuarantinedSubmission:
    submission_id: UUID
    subject_code: str
    visit_code: str
    files: int


@dataclass(frozen=True)
class WhatNext:
    """What waits for the site: each list holds the oldest, `counts` how many there are in all."""

    queries: tuple[Query, ...]
    deviations: tuple[Deviation, ...]
    quarantined: tuple[QuarantinedSubmission, ...]
    open_submissions: tuple[Submission, ...]
    failed_series: tuple[Series, ...]
    expected_visits: tuple[ExpectedVisit, ...]
    counts: dict[str, int]


def what_next(user: Any, trial: Trial) -> WhatNext:
    """Return the open work of the sites that the user may see."""
    of_visit = ("subject", "visit__definition", "site")
    queries = Query.objects.visible_to(user).filter(trial=trial, state=QueryState.OPEN)
    deviations = Deviation.objects.visible_to(user).filter(trial=trial, state=DeviationState.OPEN)
    submissions = Submission.objects.visible_to(user).filter(trial=trial, state=SubmissionState.OPEN)
    failed = Series.objects.visible_to(user).filter(trial=trial, state=SeriesState.FAILED)
    held = _quarantined(user, trial)
    expected = _expected_visits(user, trial)
    return WhatNext(
        tuple(queries.select_related(*of_visit, "deviation").order_by("created_at")[:LISTED]),
        tuple(deviations.select_related(*of_visit).order_by("-important", "opened_at")[:LISTED]),
        held[:LISTED],
        tuple(submissions.select_related(*of_visit).order_by("created_at")[:LISTED]),
        tuple(failed.select_related(*of_visit).order_by("received_at")[:LISTED]),
        expected[:LISTED],
        {
            "queries": queries.count(),
            "deviations": deviations.count(),
            "quarantined": sum(item.files for item in held),
            "open_submissions": submissions.count(),
            "failed_series": failed.count(),
            "expected_visits": len(expected),
        },
    )


def _quarantined(user: Any, trial: Trial) -> tuple[QuarantinedSubmission, ...]:
    rows = (
        QuarantinedFile.objects.visible_to(user)
        .filter(trial=trial, state=QuarantinedFile.State.HELD)
        .order_by("submission__created_at")
        .values_list("submission_id", "submission__subject__code", "submission__visit__definition__code")
        .annotate(files=Count("pk"))
    )
    return tuple(QuarantinedSubmission(*row) for row in rows)


def _expected_visits(user: Any, trial: Trial) -> tuple[ExpectedVisit, ...]:
    """Each subject's first planned visit, in calendar order, that has no image; dates are not known here."""
    definitions = planned_visits(trial)
    sent = Visit.objects.filter(trial=trial).filter(
        Exists(Series.objects.filter(visit=OuterRef("pk"), instance_count__gt=0))
        | Q(Exists(Submission.objects.filter(visit=OuterRef("pk")).exclude(state=SubmissionState.CANCELLED)))
    )
    done = set(sent.order_by().values_list("subject_id", "definition_id"))
    subjects = Subject.objects.visible_to(user).filter(trial=trial).select_related("site").order_by("code")
    found = []
    for subject in subjects:
        for definition in definitions:
            if (subject.pk, definition.pk) not in done:
                found.append(
                    ExpectedVisit(
                        subject.pk, subject.code, subject.site.code, definition.code, definition.title
                    )
                )
                break
    return tuple(found)


def planned_visits(trial: Trial) -> list[VisitDefinition]:
    """Return the visits that need images by the protocol in force, or all where none is locked."""
    rows = list(VisitDefinition.objects.filter(trial=trial).order_by("target_day", "position", "code"))
    protocol = protocol_in_force(trial.pk)
    if protocol is None:
        return rows
    required = [series for series in protocol_spec(protocol).series if series.required]
    return [row for row in rows if any(series.expected_at(row.code) for series in required)]
