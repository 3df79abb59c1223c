"""Jobs: counted attempts, recovery after a dead worker, one final state."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from hub.core.errors import Conflict, InvalidInput
from hub.core.jobs import services
from hub.core.jobs.models import Job, JobState
from hub.core.jobs.registry import _kinds, job

pytestmark = pytest.mark.django_db

failures: list[tuple[dict, str]] = []


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    """Job kinds of these tests; nothing is published."""
    published: list[str] = []
    monkeypatch.setattr(services, "_publish", lambda row: published.append(str(row.pk)))
    failures.clear()
    before = dict(_kinds)

    @job(name="test.works", queue="check")
    def works(context, *, value):
        context.progress(0.5, f"half of {value}")

    @job(
        name="test.refuses",
        queue="check",
        on_failure=lambda arguments, why: failures.append((arguments, why)),
    )
    def refuses(context):
        raise InvalidInput("The file has no rows. Send another.")

    @job(
        name="test.breaks", queue="check", on_failure=lambda arguments, why: failures.append((arguments, why))
    )
    def breaks(context):
        raise ZeroDivisionError

    yield published
    _kinds.clear()
    _kinds.update(before)


def test_a_job_runs_once_and_ends_succeeded(django_capture_on_commit_callbacks, kinds):
    with django_capture_on_commit_callbacks(execute=True):
        row = services.enqueue("test.works", key="a", arguments={"value": 3})

    services.run(str(row.pk))
    services.run(str(row.pk))

    row.refresh_from_db()
    assert kinds == [str(row.pk)]
    assert (row.state, row.attempts, row.progress, row.progress_text) == ("succeeded", 1, 1.0, "half of 3")


def test_the_same_work_is_queued_once():
    first = services.enqueue("test.works", key="a", arguments={"value": 1})

    assert services.enqueue("test.works", key="a", arguments={"value": 1}).pk == first.pk
    assert services.enqueue("test.works", key="b", arguments={"value": 1}).pk != first.pk


def test_an_expected_failure_is_final_with_its_own_words():
    row = services.enqueue("test.refuses", key="a", arguments={})

    services.run(str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.reason) == ("failed", "The file has no rows. Send another.")
    assert failures == [({}, "The file has no rows. Send another.")]


def test_an_unexpected_failure_is_tried_three_times_and_says_nothing_of_the_data():
    row = services.enqueue("test.breaks", key="a", arguments={})

    for _ in range(5):
        services.run(str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.attempts) == ("failed", 3)
    assert row.reason.startswith("Given up after 3 attempts. Internal error (ZeroDivisionError)")
    assert len(failures) == 1


def test_a_job_whose_worker_died_is_brought_back(kinds):
    row = services.enqueue("test.works", key="a", arguments={"value": 1})
    long_ago = timezone.now() - services.STALE_AFTER - timedelta(seconds=1)
    Job.objects.filter(pk=row.pk).update(state=JobState.RUNNING, attempts=1, heartbeat_at=long_ago)

    services.sweep()
    Job.objects.filter(pk=row.pk).update(created_at=long_ago)
    services.sweep()
    services.run(str(row.pk))

    row.refresh_from_db()
    assert kinds == [str(row.pk)]
    assert (row.state, row.attempts) == ("succeeded", 2)


def test_a_job_that_kills_every_worker_fails_in_the_end():
    row = services.enqueue("test.breaks", key="a", arguments={})
    long_ago = timezone.now() - services.STALE_AFTER - timedelta(seconds=1)
    for attempt in (1, 2, 3):
        Job.objects.filter(pk=row.pk).update(state=JobState.RUNNING, attempts=attempt, heartbeat_at=long_ago)
        services.sweep()

    row.refresh_from_db()
    assert row.state == "failed"
    assert "The worker died" in row.reason


def test_a_worker_that_comes_back_from_the_dead_changes_nothing():
    row = services.enqueue("test.refuses", key="a", arguments={})
    ghost = services._claim(str(row.pk))
    Job.objects.filter(pk=row.pk).update(attempts=2)

    services._finish(ghost, JobState.SUCCEEDED, "")
    services._fail(ghost, "the work of its successor")
    services._end_cancelled(ghost)

    row.refresh_from_db()
    assert row.state == "running" and failures == []


def test_a_lost_message_is_sent_again(kinds):
    row = services.enqueue("test.works", key="a", arguments={"value": 1})
    late = timezone.now() - services.REPUBLISH_AFTER - timedelta(seconds=1)
    Job.objects.filter(pk=row.pk).update(published_at=late)

    services.sweep()

    assert kinds == [str(row.pk)]


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_at_its_next_progress():
    queued = services.enqueue("test.works", key="a", arguments={"value": 1})
    services.cancel(row=queued)
    queued.refresh_from_db()
    assert queued.state == "cancelled"
    with pytest.raises(Conflict):
        services.cancel(row=queued)

    running = services.enqueue("test.works", key="b", arguments={"value": 1})
    Job.objects.filter(pk=running.pk).update(cancel_requested=True)
    services.run(str(running.pk))
    running.refresh_from_db()
    assert running.state == "cancelled"


def test_what_a_job_was_for_follows_its_cancellation_begun_or_not():
    told: list[tuple[dict, str]] = []

    @job(name="test.followed", queue="check", on_cancel=lambda arguments, why: told.append((arguments, why)))
    def followed(context, *, value):
        context.progress(0.5)

    services.cancel(row=services.enqueue("test.followed", key="a", arguments={"value": 1}))
    begun = services.enqueue("test.followed", key="b", arguments={"value": 2})
    Job.objects.filter(pk=begun.pk).update(cancel_requested=True)
    services.run(str(begun.pk))

    assert told == [({"value": 1}, "Cancelled on request."), ({"value": 2}, "Cancelled on request.")]


def test_cancelling_is_not_a_failure_of_the_job():
    services.cancel(row=services.enqueue("test.refuses", key="a", arguments={}))

    assert failures == []
