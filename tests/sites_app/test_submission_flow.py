"""A series on its way from a request body to an accepted submission."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest
from pydicom import dcmread

from hub.core.audit.models import AuditEvent
from hub.core.events import subscribe
from hub.demo.identifiers import PLANTED_MARK
from hub.demo.simulator import simulate_mr
from sites_app.events import SeriesReceived, SubmissionFinished
from sites_app.models import Instance, Series, Submission, Upload

pytestmark = pytest.mark.django_db


def zipped(series, **extra):  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in series.files:
            archive.writestr(file.name, file.data)
        for name, content in extra.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_zipped_series_is_received_processed_and_accepted(receiving):
    series = simulate_mr(slices=5, rows=32, columns=32)
    submission = receiving.open()

    answer = receiving.send(submission, zipped(series), "application/zip")
    receiving.complete(submission)
    receiving.work()

    assert answer.status_code == 202
    assert answer.json()["files"][0]["outcome"] == "received"
    found = receiving.read(submission)
    assert found["state"] == "accepted"
    assert found["counts"]["accepted"] == found["counts"]["instances"] == 5
    assert {file["outcome"] for file in found["files"]} == {"accepted"}
    row = Series.objects.get()
    assert (row.instance_count, row.modality, row.state) == (5, "MR", "received")
    assert row.scanner is not None and row.scanner_epoch.number == 1
