"""Submissions: opened by a site, filled with uploads, completed, and brought to a final state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.errors import Conflict
from hub.core.events import publish
from hub.core.jobs.services import enqueue
from sites_app.events import SubmissionFinished
from sites_app.ingest.manifest import ManifestEntry, compare, store_manifest
from sites_app.ingest.pseudonyms import current_profile
from sites_app.models import (
    FileOutcome,
    Series,
    Site,
    Submission,
    SubmissionState,
    Trial,
    Upload,
    Visit,
)
from sites_app.models.submission import TRANSITIONS
from sites_app.permissions import UPLOADERS, require_role
from sites_app.selectors.submission import file_counts
from sites_app.services.receipt import issue_receipt
from sites_app.services.scanner import lock_scanners
from sites_app.services.series import observe, receive_series
from sites_app.services.withdrawal import withdraw_received

ACTIVE_STATES = frozenset({SubmissionState.OPEN, SubmissionState.RECEIVED, SubmissionState.PROCESSING})
FINISH_JOB = "sites.finish_submission"


@dataclass(frozen=True)
class SubmissionRequest:
    """What a site says it will send: for which visit, through which channel, with which form and manifest."""

    visit: Visit
    channel: str = "rest"
    form: Mapping[str, Any] = field(default_factory=dict)
    manifest: Sequence[ManifestEntry] = ()


def create_submission(*, actor: Any, request: SubmissionRequest) -> Submission:
    """Open a submission for a visit.

    Raises NotAllowed for who may not send for the site, Conflict where the trial takes no new data.
    """
    visit = request.visit
    require_role(actor, UPLOADERS, visit.trial_id, visit.site_id, "send images for this site")
    with transaction.atomic():
        require_open_trial(visit.trial)
        _require_active_site(visit.site)
        submission = Submission.objects.create(
            trial_id=visit.trial_id,
            site_id=visit.site_id,
            subject_id=visit.subject_id,
            visit=visit,
            profile=current_profile(visit.trial),
            channel=request.channel,
            form=dict(request.form),
            manifest=[{"sha256": entry.sha256, "size": entry.size} for entry in request.manifest],
            created_by=actor,
        )
        store_manifest(submission.pk, request.manifest)
        record(
            actor=actor,
            action="submission.opened",
            obj=submission,
            new={"visit": str(visit.pk), "channel": submission.channel, "announced": len(request.manifest)},
        )
    return submission


def complete_submission(*, actor: Any, submission: Submission) -> Submission:
    """Say that everything is sent. Raises NotAllowed; Conflict where the submission is not open."""
    _require_sender(actor, submission, "complete this submission")
    with transaction.atomic():
        row = _locked(submission.pk)
        transition(row, SubmissionState.RECEIVED, actor=actor)
        if not row.uploads.filter(state=Upload.State.RECEIVED).exists():
            enqueue_finish(row)
    return row


def cancel_submission(*, actor: Any, submission: Submission) -> Submission:
    """Drop an open submission and what was received for it. Raises NotAllowed; Conflict where it is not open."""
    _require_sender(actor, submission, "cancel this submission")
    with transaction.atomic():
        row = Submission.objects.select_for_update(no_key=True).get(pk=submission.pk)
        transition(row, SubmissionState.CANCELLED, actor=actor, reason="Cancelled by the site.")
        withdraw_received(submission=row)
        row.finished_at = timezone.now()
        row.save(update_fields=["finished_at"])
    return row


def finish_submission(*, submission_id: UUID) -> bool:
    """Bring a completed submission whose uploads are all processed to its final state; return whether it did.

    In one transaction: each series touched is put together and published, counts, manifest and receipt are
    written, SubmissionFinished is published.
    """
    with transaction.atomic():
        submission = _locked(submission_id)
        if submission.state not in (SubmissionState.RECEIVED, SubmissionState.PROCESSING):
            return False
        if submission.uploads.filter(state=Upload.State.RECEIVED).exists():
            return False
        # The visit before its series, in the order in which a check locks them.
        Visit.objects.select_for_update(no_key=True).get(pk=submission.visit_id)
        # Then the series: another submission may be adding to the same ones.
        touched = Series.objects.filter(segments__upload__submission=submission).values("pk")
        ids = (
            Series.objects.select_for_update(no_key=True)
            .filter(pk__in=touched)
            .order_by("pk")
            .values_list("pk", flat=True)
        )
        observations = {series_id: observe(series_id, submission) for series_id in ids}
        lock_scanners(submission=submission, observations=observations.values())
        if submission.state == SubmissionState.RECEIVED:
            transition(submission, SubmissionState.PROCESSING, actor=None)
        for series_id, observation in observations.items():
            receive_series(series_id=series_id, observation=observation, submission=submission)
        _conclude(submission)
        publish(SubmissionFinished(submission_id=submission.pk))
    return True


def fail_submission(*, submission_id: UUID, reason: str) -> None:
    """End a submission that could not be finished; nothing of it was handed on."""
    with transaction.atomic():
        submission = Submission.objects.select_for_update(no_key=True).get(pk=submission_id)
        if submission.state not in (SubmissionState.RECEIVED, SubmissionState.PROCESSING):
            return
        submission.finished_at = timezone.now()
        submission.save(update_fields=["finished_at"])
        transition(submission, SubmissionState.FAILED, actor=None, reason=reason)
        publish(SubmissionFinished(submission_id=submission.pk))


def transition(submission: Submission, state: str, *, actor: Any, reason: str = "") -> None:
    """Move a submission, whose row the caller has locked, to another state. Raises Conflict."""
    if state not in TRANSITIONS[submission.state]:
        before = SubmissionState(submission.state).label
        raise Conflict(
            f"This submission is {before}; it cannot become {SubmissionState(state).label}."
            + (" Open a new submission for further files." if submission.state != "open" else "")
        )
    old, submission.state, submission.reason = submission.state, state, reason[:1000]
    if state == SubmissionState.RECEIVED:
        submission.completed_at = timezone.now()
    submission.save(update_fields=["state", "reason", "completed_at"])
    record(
        actor=actor,
        action=f"submission.{state}",
        obj=submission,
        old={"state": old},
        new={"state": state},
        reason=submission.reason,
    )


def _locked(submission_id: UUID) -> Submission:
    """Return a submission, locked, with the rows that its receipt and its answer name."""
    named = ("trial", "site", "subject", "visit__definition", "profile", "created_by")
    return (
        Submission.objects.select_for_update(no_key=True, of=("self",))
        .select_related(*named)
        .get(pk=submission_id)
    )


def enqueue_finish(submission: Submission) -> None:
    enqueue(
        FINISH_JOB,
        key=str(submission.pk),
        arguments={"submission_id": str(submission.pk)},
        scope=submission.trial_id,
        subscope=submission.site_id,
    )


def require_open_trial(trial: Trial) -> None:
    """Raise Conflict where the trial takes no new data; read anew, the object may be old."""
    state = Trial.objects.values_list("lock_state", flat=True).get(pk=trial.pk)
    if state != Trial.LockState.OPEN:
        raise Conflict(f"Trial {trial.code} is {state} for its data lock and takes no new images.")


def _require_active_site(site: Site) -> None:
    if not site.is_active:
        raise Conflict(f"Site {site.code} is closed. Ask the trial administrator to open it again.")


def _require_sender(actor: Any, submission: Submission, act: str) -> None:
    require_role(actor, UPLOADERS, submission.trial_id, submission.site_id, act)


def _conclude(submission: Submission) -> None:
    """Write counts, final state and receipt."""
    counts = file_counts(submission)
    problems = compare(submission)
    counts["manifest_missing"] = sum(item.code == "missing" for item in problems)
    counts["manifest_different"] = sum(item.code == "different" for item in problems)
    submission.counts = counts
    submission.finished_at = timezone.now()
    submission.save(update_fields=["counts", "finished_at"])
    state, reason = _verdict(counts)
    transition(submission, state, actor=None, reason=reason)
    submission.receipt_digest = issue_receipt(submission, problems)
    submission.save(update_fields=["receipt_digest"])


def _verdict(counts: Mapping[str, int]) -> tuple[str, str]:
    """Return the final state and its reason in words."""
    kept = counts[FileOutcome.ACCEPTED] + counts[FileOutcome.DUPLICATE]
    refused = counts[FileOutcome.REJECTED] + counts[FileOutcome.QUARANTINED]
    unsent = counts["manifest_missing"] + counts["manifest_different"]
    parts = []
    if refused:
        parts.append(f"{refused} of {counts['files']} files were not accepted")
    if unsent:
        parts.append(f"{unsent} files of the manifest did not arrive as announced")
    reason = "; ".join(parts) + ("." if parts else "")
    if kept and not parts:
        return SubmissionState.ACCEPTED, ""
    if kept:
        return SubmissionState.ACCEPTED_WITH_REJECTIONS, reason
    if counts[FileOutcome.QUARANTINED]:
        return SubmissionState.QUARANTINED, f"No file was accepted. {reason}"
    nothing = "Nothing was sent." if not counts["files"] else "No file was accepted."
    return SubmissionState.FAILED, f"{nothing} {reason}".strip()
