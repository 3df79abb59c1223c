"""Runs and exports that nobody works on are mended, and what killed workers left is removed."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.utils import timezone
from harmonization_cases import lock_plan, locked_trial

from harmonization_app.models import Export, HarmonizationRun
from harmonization_app.services import export as export_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_state, sweeping
from harmonization_app.services.sweeping import (
    ABANDONED_AFTER_S,
    ENDED_WITHOUT_RESULT,
    remove_abandoned,
    sweep_harmonization,
)
from hub.core.audit.models import AuditEvent
from hub.core.models import Job
from hub.core.storage.blobs import root
from tests.factories.harmonization_app import RunFactory
from tests.factories.sites_app import TrialFactory, UserFactory

pytestmark = pytest.mark.django_db


def long_ago(row):
    type(row).objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    return row


@pytest.fixture
def run(monkeypatch):
    before = timezone.now() - timedelta(minutes=1)
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: before)
        return RunFactory()


@pytest.fixture
def export():
    return long_ago(Export.objects.create(trial=TrialFactory(), created_by=UserFactory()))


def job_of(row, state, kind=run_services.JOB, **fields):
    return Job.objects.create(kind=kind, queue="harmonize", key=str(row.pk), state=state, **fields)


@pytest.mark.parametrize(
    ("job", "reason", "expected"),
    [
        ("cancelled", "Cancelled on request.", ("cancelled", "Cancelled on request.")),
        ("failed", "Given up after 3 attempts.", ("failed", "Given up after 3 attempts.")),
        ("succeeded", "", ("failed", ENDED_WITHOUT_RESULT)),
    ],
)
def test_a_run_whose_job_is_over_gets_its_end_once(run, job, reason, expected):
    job_of(run, job, reason=reason)

    assert sweep_harmonization() >= 1
    run.refresh_from_db()

    assert (run.state, run.reason) == expected
    assert sweep_harmonization() == 0
    assert AuditEvent.objects.filter(object_id=str(run.pk)).count() == 1


def test_a_run_without_any_job_gets_one(run):
    assert sweep_harmonization() >= 1

    job = Job.objects.get(kind=run_services.JOB, key=str(run.pk))
    run.refresh_from_db()
    assert (run.state, run.job_id, job.state) == ("queued", job.pk, "queued")
    assert job.arguments == {"run_id": str(run.pk)}
    assert sweep_harmonization() == 0


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_with_work_under_way_is_left_alone(run, state):
    job_of(run, "cancelled", reason="an earlier one")
    job_of(run, state)

    assert sweep_harmonization() == 0
    run.refresh_from_db()
    assert run.state == "queued"


def test_a_run_of_this_moment_is_left_alone():
    run = RunFactory()
    job_of(run, "cancelled")

    assert sweep_harmonization() == 0
    assert HarmonizationRun.objects.get(pk=run.pk).state == "queued"


def test_a_primary_run_without_a_job_ends_with_the_data_lock(trial, people, features, monkeypatch):
    monkeypatch.setattr(sweeping, "_WITHOUT_JOB_AFTER", timedelta(0))
    plan = lock_plan(trial, people)
    run = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    Job.objects.filter(pk=run.job_id).delete()
    locked_trial(trial, people)

    assert sweep_harmonization() >= 1

    run.refresh_from_db()
    assert (run.state, run.kind, run.reason) == ("failed", "exploratory", run_state.OVERTAKEN)
    assert sweep_harmonization() == 0


def test_an_export_without_a_job_gets_one(export):
    assert sweep_harmonization() == 1

    export.refresh_from_db()
    assert Job.objects.get(pk=export.job_id).arguments == {"export_id": str(export.pk)}


def test_an_export_whose_job_was_cancelled_fails_and_leaves_nothing(export):
    job_of(export, "cancelled", kind=export_services.JOB, reason="Cancelled on request.")
    partial = root("exports") / f"{export.pk}.partial-x"
    partial.write_bytes(b"half")

    assert sweep_harmonization() == 1

    export.refresh_from_db()
    assert (export.state, export.reason) == ("failed", "Cancelled on request.")
    assert not partial.exists()


def test_only_old_folders_of_killed_workers_are_removed():
    old = time.time() - ABANDONED_AFTER_S - 60
    for area, name in (
        ("computations", "tmpabc"),
        ("run-exports", "tmpabc"),
        ("spool", "matrix-abc"),
        ("spool", "other-abc"),
    ):
        for suffix in ("-old", "-new"):
            folder = root(area) / f"{name}{suffix}"
            folder.mkdir()
            (folder / "values.npy").write_bytes(b"x")
        os.utime(root(area) / f"{name}-old", (old, old))
    package = root("exports") / "0.partial-1"
    package.write_bytes(b"x")
    os.utime(package, (old, old))

    assert remove_abandoned() == 4

    assert sorted(path.name for path in root("spool").iterdir()) == [
        "matrix-abc-new",
        "other-abc-new",
        "other-abc-old",
    ]
    assert [path.name for path in root("computations").iterdir()] == ["tmpabc-new"]
    assert [path.name for path in root("exports").iterdir()] == []
