"""Request bodies: what is accepted, what survives, what is answered."""

from __future__ import annotations

import errno
import hashlib
import os
from io import BytesIO

import psycopg2
import pytest
from django.db import connection
from rest_framework.test import APIClient

from hub.core.errors import InvalidInput
from hub.core.jobs.models import Job
from hub.core.storage.blobs import root
from hub.demo.simulator import simulate_mr
from sites_app.ingest import spool as spool_module
from sites_app.ingest.spool import spool_path
from sites_app.models import Submission, Upload
from sites_app.services.upload import RequestBody, file_name_in, receive_upload
from tests.factories.dicom_files import MULTIPART, multipart, zipped

pytestmark = pytest.mark.django_db


def test_a_body_is_on_the_spool_with_its_digest_before_it_is_answered(receiving):
    content = os.urandom(3 * 1024**2 + 17)
    submission = receiving.open()

    answer = receiving.send(submission, content, HTTP_CONTENT_DISPOSITION='attachment; filename="IM 1.dcm"')

    sha256 = hashlib.sha256(content).hexdigest()
    upload = Upload.objects.get()
    assert answer.status_code == 202
    assert answer.json() == {
        "upload": str(upload.pk),
        "files": [
            {
                "name": "IM 1.dcm",
                "sha256": sha256,
                "size": len(content),
                "outcome": "received",
                "code": "",
                "detail": "Stored; it is being processed.",
            }
        ],
    }
    assert spool_path(upload.pk).read_bytes() == content
    assert (upload.sha256, upload.size, upload.state) == (sha256, len(content), "received")
    assert Job.objects.get(kind="sites.process_upload").arguments == {"upload_id": str(upload.pk)}


def test_the_same_body_again_is_answered_and_not_stored_again(receiving):
    submission = receiving.open()
    first = receiving.send(submission, b"the same bytes")
    second = receiving.send(submission, b"the same bytes")
    form = receiving.send(submission, multipart([("a", b"1"), ("b", b"2")]), MULTIPART)
    other = multipart([("a", b"1"), ("b", b"2")], boundary="another")
    repeated = receiving.send(submission, other, "multipart/form-data; boundary=another")

    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["upload"] == first.json()["upload"]
    assert second.json()["files"][0]["outcome"] == "duplicate"
    assert repeated.json()["upload"] == form.json()["upload"]
    assert Upload.objects.count() == len(list(root("spool").iterdir())) == 2


def test_a_form_of_five_thousand_files_is_received(receiving):
    files = [(f"folder/IM{number:05d}", b"file %d" % number) for number in range(5000)]
    submission = receiving.open()

    answer = receiving.send(submission, multipart(files), MULTIPART)
    receiving.complete(submission)
    receiving.work()

    answered = answer.json()["files"]
    assert answer.status_code == 202 and len(answered) == 5000
    assert answered[4999]["name"] == "folder/IM04999"
    assert answered[4999]["sha256"] == hashlib.sha256(b"file 4999").hexdigest()
    upload = Upload.objects.get()
    assert spool_path(upload.pk).exists() is False
    assert upload.members[1] == [6, 6, hashlib.sha256(b"file 1").hexdigest()]
    found = receiving.read(submission)
    assert (found["counts"]["files"], found["counts"]["ignored"]) == (5000, 5000)
    assert len(found["files"]) == 1000 and found["files_truncated"] is True
    page = receiving.client.get(f"/api/v1/submissions/{submission}/files/?limit=1000").json()
    seen = len(page["results"])
    while page["next"]:
        page = receiving.client.get(page["next"]).json()
        seen += len(page["results"])
    assert seen == 5000


def test_a_form_is_read_through_a_session_with_its_csrf_token(receiving):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(receiving.coordinator, backend="django.contrib.auth.backends.ModelBackend")
    client.cookies["csrftoken"] = "a" * 32
    submission = receiving.open()
    path = f"/api/v1/submissions/{submission}/files/"
    body = multipart([(f"{number}", b"%d" % number) for number in range(300)])

    refused = client.generic("POST", path, body, content_type=MULTIPART)
    accepted = client.generic("POST", path, body, content_type=MULTIPART, HTTP_X_CSRFTOKEN="a" * 32)

    assert (refused.status_code, accepted.status_code) == (403, 202)
    assert len(accepted.json()["files"]) == 300


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_content"),
        (b"x", "", 415, "unsupported_content"),
        (b"", "application/dicom", 400, "invalid_input"),
        (b"", "application/zip", 400, "invalid_input"),
        (multipart([("a", b"1")])[:-20], MULTIPART, 400, "invalid_input"),
        (b"no parts at all", MULTIPART, 400, "invalid_input"),
        (multipart([]), MULTIPART, 400, "invalid_input"),
        (multipart([("a", b"1")]), "multipart/form-data", 400, "invalid_input"),
    ],
)
def test_a_body_that_cannot_be_used_leaves_nothing_behind(receiving, content, content_type, status, code):
    submission = receiving.open()

    answer = receiving.send(submission, content, content_type)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert list(root("spool").iterdir()) == [] and not Upload.objects.exists()


def test_a_refused_content_type_names_those_that_are_accepted(receiving):
    answer = receiving.send(receiving.open(), b"x", "text/plain")

    for accepted in ("application/dicom", "application/zip", "multipart/form-data"):
        assert accepted in answer.json()["detail"]


def test_too_many_parts_are_refused(receiving, monkeypatch):
    monkeypatch.setattr("sites_app.ingest.multipart.MOST_PARTS", 10)

    answer = receiving.send(receiving.open(), multipart([("n", b"x")] * 11), MULTIPART)

    assert answer.status_code == 400 and "10 parts" in answer.json()["detail"]
    assert list(root("spool").iterdir()) == []


def test_a_body_cut_short_is_refused(receiving):
    submission = Submission.objects.get(pk=receiving.open())
    body = RequestBody("application/dicom", 100, BytesIO(b"only ten b"))

    with pytest.raises(InvalidInput, match="after 10 of 100 bytes"):
        receive_upload(actor=receiving.coordinator, submission=submission, body=body)

    assert list(root("spool").iterdir()) == [] and not Upload.objects.exists()


def test_short_writes_are_continued(receiving, monkeypatch):
    real = os.write
    monkeypatch.setattr(spool_module.os, "write", lambda fd, data: real(fd, bytes(data[:7])))
    content = os.urandom(1000)

    receiving.send(receiving.open(), content)

    assert spool_path(Upload.objects.get().pk).read_bytes() == content


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_is_answered_507_and_leaves_nothing(receiving, monkeypatch, step):
    def full(*_):  # type: ignore[no-untyped-def]
        raise OSError(errno.ENOSPC, "No space left on device")

    submission = receiving.open()
    monkeypatch.setattr(spool_module.os, step, full)
    answer = receiving.send(submission, b"content")
    monkeypatch.undo()

    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert list(root("spool").iterdir()) == [] and not Upload.objects.exists()


def test_uploads_stop_before_the_disk_is_full(receiving, settings):
    submission = receiving.open()
    settings.HUB_FREE_SPACE_FLOOR = 1.0

    assert receiving.send(submission, b"content").status_code == 507


@pytest.mark.parametrize("said_by", [psycopg2.OperationalError, psycopg2.DatabaseError])
def test_a_lost_database_is_answered_503_and_the_file_left_for_the_janitor(receiving, monkeypatch, said_by):
    def lost(*_, **__):  # type: ignore[no-untyped-def]
        with connection.wrap_database_errors:
            raise said_by("server closed the connection unexpectedly")

    submission = receiving.open()
    monkeypatch.setattr("sites_app.services.upload.enqueue_processing", lost)
    answer = receiving.send(submission, b"content")
    monkeypatch.undo()
    again = receiving.send(submission, b"content")

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert again.status_code == 202 and Upload.objects.count() == 1
    assert len(list(root("spool").iterdir())) == 2


def test_a_zip_inside_a_form_is_unpacked(receiving):
    series = simulate_mr(slices=2, rows=16, columns=16)
    submission = receiving.open()

    body = multipart([("scan.zip", zipped(series.files)), ("notes.txt", b"words")])
    receiving.send(submission, body, MULTIPART)
    receiving.complete(submission)
    receiving.work()

    counts = receiving.read(submission)["counts"]
    assert (counts["files"], counts["accepted"], counts["ignored"]) == (3, 2, 1)


def test_a_file_name_is_read_from_its_header():
    assert file_name_in('attachment; filename="a b.dcm"') == "a b.dcm"
    assert file_name_in("") == ""
