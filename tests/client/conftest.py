"""A live hub whose jobs are done as they come, and a client that is configured by the environment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from hub.core.jobs import services as job_services
from hub.core.jobs.models import Job
from hub.demo.plan import simulated_submissions, uploads
from hub.demo.trial import trial_document
from qc_app.models import Protocol, QCProfile
from qc_app.services import protocol as protocol_services
from qc_app.services import qc_profile as profile_services
from sites_app.models import Role, Trial
from sites_app.services.trial_file import apply_trial
from tests.factories.sites_app import PASSWORD, MembershipFactory, UserFactory

SECTIONS = ("trial", "arms", "visit_definitions", "sites", "scanners", "subjects", "protocol", "qc_profile")
SIGNATURE = {"password": PASSWORD, "meaning": "I approve this"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No hub and no token but what the test says; receipts land in a folder of the test's."""
    for name in ("HUB_URL", "HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def working(transactional_db: None) -> Iterator[None]:
    """Jobs are run by a thread, as a worker would."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            for row in Job.objects.filter(state=Job.State.QUEUED).order_by("created_at")[:5]:
                job_services.run(str(row.pk))
        connection.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(timeout=60)


@pytest.fixture
def trial(transactional_db: None) -> Trial:
    """The demonstration's trial with its protocol and QC profile locked."""
    document = {key: value for key, value in trial_document().items() if key in SECTIONS}
    trial, _ = apply_trial(actor=None, content=json.dumps(document), name="trial.json")
    assert trial is not None
    admin = MembershipFactory(
        trial=trial, role=Role.TRIAL_ADMINISTRATOR, user=UserFactory(username="admin")
    ).user
    protocol_services.lock_protocol(actor=admin, row=Protocol.objects.get(trial=trial), **SIGNATURE)
    profile_services.lock_profile(actor=admin, row=QCProfile.objects.get(trial=trial), **SIGNATURE)
    return trial


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first simulated submission of the demonstration, as files in folders."""
    target = tmp_path / "images"
    for upload in uploads(simulated_submissions()[0]):
        for file in upload.files:
            path = target / upload.key / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
    (target / ".hidden").write_bytes(b"not sent")
    return target
