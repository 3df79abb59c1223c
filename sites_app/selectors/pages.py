"""What the pages of receiving show: subjects and visits to send for, submissions with their counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from sites_app.models import (
    FileOutcome,
    Site,
    Subject,
    Submission,
    SubmissionFile,
    SubmissionState,
    Trial,
    VisitDefinition,
)
from sites_app.permissions import can_submit
from sites_app.selectors.submission import OriginalNames, file_counts, visible_submissions
from sites_app.services.receipt import load_receipt

UNDER_WAY = (SubmissionState.OPEN, SubmissionState.RECEIVED, SubmissionState.PROCESSING)
# The order in which outcomes are shown: what needs a person first.
OUTCOME_ORDER = (
    FileOutcome.QUARANTINED,
    FileOutcome.REJECTED,
    FileOutcome.DUPLICATE,
    FileOutcome.IGNORED,
    FileOutcome.ACCEPTED,
)


@dataclass(frozen=True)
class VisitChoice:
    """A visit that images can be sent for, and what was sent for it before."""

    code: str
    title: str
    submissions: int


@dataclass(frozen=True)
class OutcomeCount:
    outcome: str
    count: int


@dataclass(frozen=True)
class ReasonCount:
    """Files that were not simply accepted, by reason, with what to do about it."""

    outcome: str
    code: str
    detail: str
    action: str
    count: int


@dataclass(frozen=True)
class FileRow:
    name: str
    file: SubmissionFile


def sites_to_send_for(user: Any, trial: Trial) -> list[Site]:
    """Return the active sites for which the user may send images."""
    rows = Site.objects.visible_to(user).filter(trial=trial, is_active=True)
    return [site for site in rows if can_submit(user, site)]


def subjects_of(sites: list[Site]) -> QuerySet[Subject]:
    return Subject.objects.filter(site__in=sites).select_related("site").order_by("site__code", "code")


def visit_choices(subject: Subject) -> list[VisitChoice]:
    """Return every planned visit of the trial for one subject, in the trial's order."""
    sent = Submission.objects.filter(subject=subject).exclude(state=SubmissionState.CANCELLED)
    counts: dict[Any, int] = dict(
        sent.order_by().values_list("visit__definition_id").annotate(number=Count("pk"))
    )
    definitions = VisitDefinition.objects.filter(trial_id=subject.trial_id)
    return [VisitChoice(row.code, row.title, counts.get(row.pk, 0)) for row in definitions]


def listed_submissions(user: Any, trial: Trial) -> QuerySet[Submission]:
    return visible_submissions(user).filter(trial=trial)


def counts_of(submission: Submission) -> dict[str, int]:
    """Return the counts of a finished submission as written, of one under way as they are now."""
    return submission.counts or file_counts(submission)


def outcome_counts(counts: dict[str, int]) -> list[OutcomeCount]:
    return [OutcomeCount(outcome.value, counts.get(outcome.value, 0)) for outcome in OUTCOME_ORDER]


def reasons_of(submission: Submission) -> list[ReasonCount]:
    """Return why files were not simply accepted, the most frequent reason of each outcome first."""
    rows = (
        SubmissionFile.objects.filter(submission=submission)
        .exclude(outcome=FileOutcome.ACCEPTED)
        .order_by()
        .values_list("outcome", "code", "detail", "action")
        .annotate(number=Count("pk"))
    )
    order = [outcome.value for outcome in OUTCOME_ORDER]
    found = [ReasonCount(*row) for row in rows]
    return sorted(found, key=lambda item: (order.index(item.outcome), -item.count, item.code))


def named_files(user: Any, files: list[SubmissionFile]) -> list[FileRow]:
    """Pair files with their names as sent, for who may see them; others see the place in the upload."""
    names = OriginalNames(user)
    return [FileRow(names.of(file) or f"file {file.ordinal + 1}", file) for file in files]


def receipt_content(submission: Submission) -> dict[str, Any] | None:
    """Return the signed receipt, read; None before there is one."""
    if not submission.receipt_digest:
        return None
    document: dict[str, Any] = json.loads(load_receipt(submission))
    return document
