"""What this layer does when images arrive: handlers run inside the publisher's transaction."""

from __future__ import annotations

from hub.core.events import subscribe
from qc_app import tasks
from qc_app.services.drift import note_scanner_change
from sites_app.events import ScannerChanged, SeriesReceived, SubmissionFinished
from sites_app.models import Series, Submission


def on_series_received(event: SeriesReceived) -> None:
    tasks.enqueue_series_check(Series.objects.only("pk", "trial_id", "site_id").get(pk=event.series_id))


def on_submission_finished(event: SubmissionFinished) -> None:
    submission = Submission.objects.select_related("visit").get(pk=event.submission_id)
    tasks.enqueue_visit_check(submission.visit)


def on_scanner_changed(event: ScannerChanged) -> None:
    note_scanner_change(
        epoch_id=event.epoch_id, previous_epoch_id=event.previous_epoch_id, series_id=event.series_id
    )


def subscribe_all() -> None:
    subscribe(SeriesReceived, on_series_received)
    subscribe(SubmissionFinished, on_submission_finished)
    subscribe(ScannerChanged, on_scanner_changed)
