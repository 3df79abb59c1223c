"""Jobs that a full disk or a lost database interrupts: tried again, and not blamed for it."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from hub.core.errors import StorageFull
from hub.core.jobs import services
from hub.core.jobs.models import Job
from hub.core.jobs.registry import _kinds, job

pytestmark = pytest.mark.django_db

failures: list[str] = []
errors: list[Exception] = []


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """A kind of job that raises `errors` one after the other, then works; what is published is listed."""
    found: list[str] = []
    # A test's transaction lives in the connection that an interrupted job gives up.
    monkeypatch.setattr(services, "connection", SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(services, "_publish", lambda row: found.append(str(row.pk)))
    failures.clear()
    errors.clear()
    before = dict(_kinds)

    @job(name="test.interrupted", queue="check", on_failure=lambda arguments, why: failures.append(why))
    def interrupted(context):
        if errors:
            raise errors.pop(0)

    yield found
    _kinds.clear()
    _kinds.update(before)


def test_interruptions_do_not_use_up_the_attempts():
    row = services.enqueue("test.interrupted", key="a", arguments={})
    errors.extend(
        [OperationalError(), InterfaceError(), ConnectionResetError(), StorageFull("Full."), OSError()]
    )

    for _ in range(6):
        services.run(str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.attempts, failures) == ("succeeded", 6, [])


def test_a_job_waits_while_the_disk_is_full_and_says_so(published):
    row = services.enqueue("test.interrupted", key="a", arguments={})
    Job.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    errors.append(StorageFull("The disk is full."))

    services.run(str(row.pk))
    services.sweep()
    at_once = list(published)
    Job.objects.filter(pk=row.pk).update(published_at=timezone.now() - services.REPUBLISH_AFTER)
    services.sweep()

    row.refresh_from_db()
    assert (row.state, row.reason) == ("queued", "The disk is full.")
    assert (at_once, published) == ([], [str(row.pk)])


def test_a_job_that_is_always_interrupted_fails_in_the_end():
    row = services.enqueue("test.interrupted", key="a", arguments={})
    errors.extend(OperationalError() for _ in range(services.MOST_ATTEMPTS + 5))

    for _ in range(services.MOST_ATTEMPTS + 5):
        services.run(str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.attempts) == ("failed", services.MOST_ATTEMPTS)
    assert failures == [f"Given up after {services.MOST_ATTEMPTS} attempts (OperationalError)."]
