"""The whole way of an image: sent by API, received, judged by its jobs, read by API."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import pytest
from django.core.cache import cache

from hub.core.jobs import services as job_services
from hub.core.jobs.models import Job, JobState
from hub.demo.simulator import default_acquisition, simulate_mr
from tests.factories.qc_app import ProtocolFactory, QCProfileFactory
from tests.sites_app.conftest import Receiving


@pytest.fixture
def receiving(db, monkeypatch):
    monkeypatch.setattr(job_services, "_publish", lambda row: None)
    cache.clear()
    place = Receiving()
    ProtocolFactory(trial=place.trial, locked=True)
    QCProfileFactory(trial=place.trial, locked=True)
    return place


def work() -> None:
    """Run every queued job as a worker would, until none is left."""
    for _ in range(100):
        row = Job.objects.filter(state=JobState.QUEUED).order_by("created_at").first()
        if row is None:
            return
        job_services.run(str(row.pk))
    raise AssertionError("The queue does not run empty")


def zipped(series) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file in series.files:
            archive.writestr(file.name, file.data)
    return stream.getvalue()


def send(receiving, series) -> dict:
    submission = receiving.open()
    assert receiving.send(submission, zipped(series), "application/zip").status_code < 300
    assert receiving.complete(submission).status_code == 202
    work()
    return receiving.read(submission)


def get(receiving, path: str) -> dict:
    response = receiving.client.get(f"/api/v1/{path}")
    assert response.status_code == 200, response.content
    return response.json()


def test_a_series_sent_by_api_is_judged_and_its_repeat_replaces_it(receiving):
    wrong = simulate_mr(seed=1, slices=12, parameters=_parameters(RepetitionTime=2400.0))
    repeat = replace(default_acquisition(1), series="t1, repeated")
    right = simulate_mr(seed=1, slices=12, parameters=_parameters(), acquisition=repeat)

    assert send(receiving, wrong)["state"] == "accepted"
    (first,) = get(receiving, f"series/?visit={receiving.visit.pk}")["results"]
    (found,) = get(receiving, "deviations/?state=open")["results"]
    send(receiving, right)
    rows = get(receiving, f"series/?visit={receiving.visit.pk}")["results"]
    second = next(row for row in rows if row["id"] != first["id"])
    deviations = get(receiving, f"deviations/?visit={receiving.visit.pk}")["results"]

    assert (first["state"], found["rule"], found["observed"]) == ("checked", "tr", 2400.0)
    assert get(receiving, f"series/{first['id']}/verdicts/")["outcome"] == "deviant"
    assert get(receiving, f"series/{second['id']}/verdicts/")["outcome"] == "compliant"
    assert get(receiving, f"series/{second['id']}/metrics/")["outcome"] in {"pass", "warn"}
    assert [(row["state"], row["resolved_by_series"]) for row in deviations] == [("resolved", second["id"])]
    assert get(receiving, "queries/?state=open")["results"] == []
    assert not Job.objects.exclude(state=JobState.SUCCEEDED).exists()


def _parameters(**changes):
    base = {
        "RepetitionTime": 2300.0, "EchoTime": 2.98, "InversionTime": 900.0, "FlipAngle": 9.0,
        "PixelBandwidth": 240.0, "MRAcquisitionType": "3D",
    }  # fmt: skip
    return {**base, **changes}
