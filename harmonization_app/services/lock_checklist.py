"""What must hold before the data of a trial are locked, counted as it stands now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harmonization_app.models import HarmonizationPlan, HarmonizationRun, RunState
from hub.core.models import Job
from qc_app.models import Deviation, Protocol, QCProfile, Query, VersionState
from sites_app.models import QuarantinedFile, Series, SeriesState, Submission, Trial

_UNFINISHED_SUBMISSIONS = ("open", "received", "processing")


@dataclass(frozen=True)
class ChecklistItem:
    """One condition of the lock: `blocking` ones must be met, `count` says how many things stand open."""

    code: str
    title: str
    met: bool
    blocking: bool
    count: int
    detail: str


def checklist(trial: Trial) -> list[ChecklistItem]:
    """Return every condition of a data lock as it stands now."""
    counted = [
        ("submissions_finished", "Every submission is processed", True, unfinished_submissions),
        ("series_checked", "Every series is checked", True, _unchecked_series),
        ("deviations_closed", "No deviation is open", True, _open_deviations),
        ("queries_closed", "No query is open", True, _open_queries),
        ("jobs_finished", "No job of the trial is under way", True, _unfinished_jobs),
        ("no_drafts", "No protocol, QC profile or plan is a draft", True, _drafts),
        ("no_tried_drafts", "No plan that runs were made with is a draft still", False, _tried_drafts),
        ("quarantine_decided", "No quarantined file waits for a decision", False, _held_files),
    ]
    items = [
        ChecklistItem(code, title, count == 0, blocking, count, "" if count == 0 else f"{count} left")
        for code, title, blocking, counter in counted
        for count in [counter(trial)]
    ]
    return items + [_exists(*entry, trial) for entry in _REQUIRED]


def _exists(
    code: str, title: str, blocking: bool, test: Callable[[Trial], bool], trial: Trial
) -> ChecklistItem:
    met = test(trial)
    return ChecklistItem(code, title, met, blocking, 0 if met else 1, "" if met else "there is none")


_REQUIRED: list[tuple[str, str, bool, Callable[[Trial], bool]]] = [
    (
        "protocol_locked",
        "An acquisition protocol is locked",
        True,
        lambda trial: Protocol.objects.filter(trial=trial, state=VersionState.LOCKED).exists(),
    ),
    (
        "qc_profile_locked",
        "A QC profile is locked",
        True,
        lambda trial: QCProfile.objects.filter(trial=trial, state=VersionState.LOCKED).exists(),
    ),
    (
        "primary_run",
        "A primary harmonization run has succeeded",
        False,
        lambda trial: HarmonizationRun.objects.filter(
            trial=trial, kind=HarmonizationRun.Kind.PRIMARY, state=RunState.SUCCEEDED
        ).exists(),
    ),
]


def unfinished_submissions(trial: Trial) -> int:
    return Submission.objects.filter(trial=trial, state__in=_UNFINISHED_SUBMISSIONS).count()


def _unchecked_series(trial: Trial) -> int:
    return Series.objects.filter(trial=trial).exclude(state=SeriesState.CHECKED).count()


def _open_deviations(trial: Trial) -> int:
    return Deviation.objects.filter(trial=trial, state__in=["open", "acknowledged"]).count()


def _open_queries(trial: Trial) -> int:
    return Query.objects.filter(trial=trial).exclude(state="closed").count()


def _unfinished_jobs(trial: Trial) -> int:
    return Job.objects.filter(scope=trial.pk, state__in=["queued", "running"]).count()


def _drafts(trial: Trial) -> int:
    """Count the drafts that can still be locked or discarded."""
    versions = sum(
        model.objects.filter(trial=trial, state=VersionState.DRAFT).count() for model in (Protocol, QCProfile)
    )
    plans = HarmonizationPlan.objects.filter(trial=trial, state=VersionState.DRAFT)
    return versions + plans.exclude(pk__in=plans.filter(runs__isnull=False)).count()


def _tried_drafts(trial: Trial) -> int:
    """Count the candidates that exploratory runs name: their record, which nobody should have to lock."""
    plans = HarmonizationPlan.objects.filter(trial=trial, state=VersionState.DRAFT, runs__isnull=False)
    return plans.distinct().count()


def _held_files(trial: Trial) -> int:
    return QuarantinedFile.objects.filter(trial=trial, state="held").count()
