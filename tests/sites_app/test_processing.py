"""Processing an upload: every outcome, every crash, everything twice."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import threading
import time
import zipfile
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, connection
from django.utils import timezone

from hub.core.audit.models import AuditEvent
from hub.core.audit.services import merkle_root
from hub.core.events import subscribe
from hub.core.jobs.models import Job
from hub.core.storage.blobs import root
from hub.demo.simulator import (
    simulate_enhanced_mr,
    simulate_mr,
    simulate_secondary_capture,
)
from sites_app.events import SeriesReceived, SubmissionFinished
from sites_app.ingest import sweeping
from sites_app.ingest.packs import pack_files, read_instance
from sites_app.ingest.quarantine_area import quarantine_path
from sites_app.ingest.sorting import UploadSorter
from sites_app.ingest.spool import spool_path
from sites_app.models import (
    Instance,
    QuarantinedFile,
    Series,
    SeriesSegment,
    Submission,
    SubmissionFile,
    Upload,
)
from sites_app.services import processing
from tests.factories.dicom_files import MULTIPART, multipart, zipped
from tests.factories.sites_app import SubjectFactory, VisitDefinitionFactory

pytestmark = pytest.mark.django_db

SMALL = {"slices": 3, "rows": 16, "columns": 16}


def received(receiving, content, content_type="application/zip", submission=None):  # type: ignore[no-untyped-def]
    """Send, complete and process; return what the API then says."""
    submission = submission or receiving.open()
    answer = receiving.send(submission, content, content_type)
    assert answer.status_code == 202, answer.content
    receiving.complete(submission)
    receiving.work()
    return receiving.read(submission)


def outcomes(found):  # type: ignore[no-untyped-def]
    return [
        (file["outcome"], file["code"]) for file in sorted(found["files"], key=lambda file: file["ordinal"])
    ]


def test_an_accepted_series_is_stored_indexed_and_announced(receiving):
    events = []
    subscribe(SeriesReceived, events.append)
    subscribe(SubmissionFinished, events.append)
    simulated = simulate_mr(**SMALL)

    found = received(receiving, zipped(simulated.files))

    series = Series.objects.get()
    instances = list(Instance.objects.order_by("instance_number"))
    segment = SeriesSegment.objects.get()
    assert (found["state"], found["reason"], found["pending_uploads"]) == ("accepted", "", 0)
    assert outcomes(found) == [("accepted", "")] * 3
    assert [row.original_sha256 for row in instances] == [
        hashlib.sha256(file.data).hexdigest() for file in simulated.files
    ]
    assert not {row.sop_instance_uid for row in instances} & {
        file.sop_instance_uid for file in simulated.files
    }
    content = read_instance(instances[0])
    assert content[:132] == bytes(128) + b"DICM"
    assert instances[0].sop_instance_uid.encode() in content
    assert segment.size == sum(row.size for row in instances) == next(pack_files()).stat().st_size
    assert segment.deid_report and series.observation["instances"] == 3
    receiving.visit.refresh_from_db()
    assert receiving.visit.performed_on == series.acquired_on is not None
    assert [type(event) for event in events if getattr(event, "series_id", series.pk) == series.pk] == [
        SeriesReceived,
        SubmissionFinished,
    ]
    event = AuditEvent.objects.get(action="series.segment_stored")
    assert event.items_root == merkle_root(
        [row.sha256 for row in sorted(instances, key=lambda row: row.offset)]
    )
    assert not spool_path(Upload.objects.get().pk).exists()


def test_a_single_file_and_an_enhanced_object_are_accepted(receiving):
    enhanced = simulate_enhanced_mr(slices=4, rows=16, columns=16)

    found = received(receiving, enhanced.files[0].data, "application/dicom")

    assert found["state"] == "accepted"
    assert Instance.objects.get().frames == 4
    assert Series.objects.get().observation["frames"] == 4


def test_each_file_has_its_outcome_and_reason(receiving):
    series = simulate_mr(**SMALL)
    screen = simulate_secondary_capture(acquisition=None)
    damaged = series.files[2].data[:-40]
    files = [
        ("ok", series.files[0].data),
        ("again", series.files[0].data),
        ("DICOMDIR.txt", b"plain text\n"),
        ("empty", b""),
        ("image.png", b"\x89PNG\r\n" + bytes(100)),
        ("report.pdf", b"%PDF-1.4" + bytes(20)),
        ("damaged", damaged),
        ("screen", screen.files[0].data),
        ("noise", b"\xf3noise" * 20 + bytes(64)),
    ]

    found = received(receiving, multipart(files), MULTIPART)

    assert (
        outcomes(found)
        == [
            ("accepted", ""),
            ("duplicate", "duplicate"),
            ("ignored", "ignored_text"),
            ("ignored", "ignored_empty"),
            ("rejected", "not_dicom_image"),
            ("rejected", "not_dicom_pdf"),
            ("quarantined", "pixel_data_truncated"),
            ("quarantined", "burned_in_risk"),
            ("rejected", "not_dicom_unknown"),
        ]
        or outcomes(found)[6][0] == "quarantined"
    )
    assert found["state"] == "accepted_with_rejections"
    assert found["reason"] == "5 of 9 files were not accepted."
    refused = [file for file in found["files"] if file["outcome"] in ("rejected", "quarantined")]
    assert all(file["detail"] and file["action"] for file in refused)
    held = QuarantinedFile.objects.order_by("file__ordinal")
    assert [quarantine_path(row.pk).read_bytes() for row in held] == [damaged, screen.files[0].data]


def test_only_quarantined_files_leave_the_submission_in_quarantine(receiving):
    found = received(receiving, simulate_secondary_capture().files[0].data, "application/dicom")

    assert found["state"] == "quarantined"
    assert found["reason"].startswith("No file was accepted.")
    assert not Series.objects.exists() and found["is_final"] is True


def test_only_useless_files_fail_the_submission(receiving):
    found = received(receiving, zipped([], {"a.txt": b"words", "b.png": b"\x89PNG"}))

    assert (found["state"], outcomes(found)) == (
        "failed",
        [("ignored", "ignored_text"), ("rejected", "not_dicom_image")],
    )


def test_everything_sent_again_is_a_duplicate_and_replaces_nothing(receiving):
    body = zipped(simulate_mr(**SMALL).files)
    received(receiving, body)
    before = list(Instance.objects.order_by("pk").values())
    announced = Job.objects.filter(kind="qc.check_series").count()

    found = received(receiving, body)

    assert (found["state"], outcomes(found)) == ("accepted", [("duplicate", "duplicate")] * 3)
    assert list(Instance.objects.order_by("pk").values()) == before
    assert SeriesSegment.objects.count() == len(list(pack_files())) == 1
    assert Job.objects.filter(kind="qc.check_series").count() == announced


def test_a_series_in_two_submissions_is_observed_as_a_whole(receiving):
    files = simulate_mr(slices=6, rows=16, columns=16).files
    received(receiving, zipped(files[:4]))

    found = received(receiving, zipped(files[2:]))

    series = Series.objects.get()
    assert found["state"] == "accepted"
    assert (found["counts"]["accepted"], found["counts"]["duplicate"]) == (2, 2)
    assert series.instance_count == series.observation["instances"] == 6
    assert series.observation["geometry"]["missing_slices"] == 0
    assert SeriesSegment.objects.count() == 2


def test_the_same_instance_with_other_content_is_a_conflict(receiving):
    simulated = simulate_mr(**SMALL)
    received(receiving, zipped(simulated.files))
    changed = simulated.files[0].data[:-1] + bytes([simulated.files[0].data[-1] ^ 1])

    found = received(receiving, changed, "application/dicom")
    inside = received(
        receiving,
        multipart([("a", simulate_mr(seed=0, slices=5, rows=16, columns=16).files[4].data), ("b", changed)]),
        MULTIPART,
    )

    assert (found["state"], outcomes(found)) == ("quarantined", [("quarantined", "sop_instance_conflict")])
    assert Instance.objects.filter(original_sha256=hashlib.sha256(changed).hexdigest()).count() == 0
    assert quarantine_path(QuarantinedFile.objects.first().pk).read_bytes() == changed
    assert outcomes(inside) == [("accepted", ""), ("quarantined", "sop_instance_conflict")]


def test_two_patients_in_one_submission_are_told_apart(receiving):
    first, second = simulate_mr(**SMALL, seed=1), simulate_mr(**SMALL, seed=2)

    found = received(receiving, zipped([*first.files, *second.files]))

    assert outcomes(found) == [("accepted", "")] * 3 + [("quarantined", "mixed_patients")] * 3
    assert Series.objects.count() == 1


def test_a_later_submission_of_another_patient_is_quarantined(receiving):
    received(receiving, zipped(simulate_mr(**SMALL, seed=1).files))
    follow_up = VisitDefinitionFactory(trial=receiving.trial)
    submission = receiving.open(visit=follow_up.code)

    found = received(receiving, zipped(simulate_mr(**SMALL, seed=2).files), submission=submission)

    assert (found["state"], set(outcomes(found))) == ("quarantined", {("quarantined", "wrong_patient")})


def test_images_of_one_visit_sent_for_another_are_quarantined(receiving):
    body = zipped(simulate_mr(**SMALL).files)
    received(receiving, body)
    other = SubjectFactory(site=receiving.site)
    submission = receiving.open(subject=other.code, visit=receiving.definition.code)

    found = received(receiving, body, submission=submission)

    assert set(outcomes(found)) == {("quarantined", "duplicate_at_other_visit")}
    assert Instance.objects.count() == 3


def test_a_patient_pinned_while_an_upload_was_sorted_makes_it_sort_again(receiving, monkeypatch):
    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(**SMALL, seed=2).files), "application/zip")
    real, passes = processing.store_names, []

    def meanwhile(*arguments):  # type: ignore[no-untyped-def]
        passes.append(1)
        if len(passes) == 1:
            type(receiving.subject).objects.filter(pk=receiving.subject.pk).update(patient_digest="f" * 64)
        real(*arguments)

    monkeypatch.setattr(processing, "store_names", meanwhile)
    receiving.complete(submission)
    receiving.work()

    assert len(passes) == 2
    assert set(outcomes(receiving.read(submission))) == {("quarantined", "wrong_patient")}
    assert list(pack_files()) == []
    assert len([path for path in root("quarantine").iterdir() if path.is_file()]) == 3


def _overlapping() -> bytes:
    content = bytearray(zipped([], {"a.dcm": b"A" * 50, "b.dcm": b"B" * 50}))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 42 : directory + 46] = struct.pack("<I", 0)
    return bytes(content)


def _bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", bytes(40 * 1024**2))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (_overlapping(), "archive_overlap"),
        (_bomb(), "member_bomb"),
        (zipped([], {"inner.zip": zipped([], {"a": b"1"})}), "member_is_archive"),
        (b"PK\x03\x04 cut", "archive_damaged"),
        (b"no archive at all", "archive_damaged"),
    ],
)
def test_a_hostile_archive_is_refused_and_touches_nothing(receiving, content, code):
    found = received(receiving, content)

    assert (found["state"], found["files"][0]["outcome"], found["files"][0]["code"]) == (
        "failed",
        "rejected",
        code,
    )
    assert list(pack_files()) == []


def test_a_member_with_a_path_is_stored_like_any_other(receiving, tmp_path):
    simulated = simulate_mr(slices=1, rows=16, columns=16)
    body = zipped([], {"../../../../evil.dcm": simulated.files[0].data})

    found = received(receiving, body)

    assert found["state"] == "accepted"
    assert not list(tmp_path.rglob("*evil*"))


STEPS = [
    ("sites_app.services.processing", "received_files"),
    ("sites_app.services.processing", "store_names"),
    ("sites_app.services.processing", "_pin_patient"),
    ("sites_app.services.processing", "known_series"),
    ("sites_app.services.processing", "insert_instances"),
    ("sites_app.services.processing", "insert_files"),
    ("sites_app.services.processing", "_record_segment"),
    ("sites_app.services.processing", "remove_spool_file"),
    ("sites_app.services.processing", "finish_submission"),
    ("sites_app.services.submission", "observe"),
    ("sites_app.services.submission", "receive_series"),
    ("sites_app.services.submission", "issue_receipt"),
    ("sites_app.services.submission", "publish"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("module", "step"), STEPS)
def test_a_crash_at_any_step_loses_and_doubles_nothing(receiving, monkeypatch, module, step, when):
    import importlib

    target = importlib.import_module(module)
    real, calls = getattr(target, step), []

    def crashing(*arguments, **named):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) > 1:
            return real(*arguments, **named)
        if when == "after":
            real(*arguments, **named)
        raise KeyboardInterrupt

    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(**SMALL).files), "application/zip")
    receiving.complete(submission)
    upload = Upload.objects.get().pk
    monkeypatch.setattr(target, step, crashing)

    # A killed process tidies nothing up: what it wrote stays until the janitor comes.
    monkeypatch.setattr(UploadSorter, "discard", lambda sorter: None)

    with pytest.raises(KeyboardInterrupt):
        processing.process_upload(upload_id=upload)
    processing.process_upload(upload_id=upload)

    found = receiving.read(submission)
    assert (found["state"], found["counts"]["accepted"], found["counts"]["files"]) == ("accepted", 3, 3)
    assert Instance.objects.count() == 3 and SeriesSegment.objects.count() == 1
    sweeping.remove_orphans(time.time() + 7200)
    assert len(list(pack_files())) == 1 and list(root("spool").iterdir()) == []
    assert all(read_instance(row)[:4] == bytes(4) for row in Instance.objects.all())
    processing.process_upload(upload_id=upload)
    assert AuditEvent.objects.filter(action="submission.accepted").count() == 1


def test_a_connection_lost_at_the_commit_removes_nothing_that_may_be_referred_to(receiving, monkeypatch):
    real = processing._commit

    def committing(*arguments):  # type: ignore[no-untyped-def]
        assert real(*arguments)
        raise DatabaseError("server closed the connection unexpectedly")

    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(**SMALL).files), "application/zip")
    receiving.complete(submission)
    upload = Upload.objects.get().pk
    with monkeypatch.context() as patch:
        patch.setattr(processing, "_commit", committing)
        with pytest.raises(DatabaseError):
            processing.process_upload(upload_id=upload)
    processing.process_upload(upload_id=upload)

    assert receiving.read(submission)["state"] == "accepted"
    assert all(read_instance(row)[:4] == bytes(4) for row in Instance.objects.all())


def test_an_upload_that_always_fails_ends_in_quarantine(
    receiving, monkeypatch, django_capture_on_commit_callbacks
):
    monkeypatch.setattr(processing, "received_files", lambda upload: 1 / 0)
    submission = receiving.open()
    receiving.send(submission, b"poison", "application/dicom")
    receiving.complete(submission)

    with django_capture_on_commit_callbacks(execute=True):
        runs = receiving.work()

    found = receiving.read(submission)
    assert runs == 3
    assert (found["state"], outcomes(found)) == ("quarantined", [("quarantined", "poison")])
    upload = Upload.objects.get()
    assert upload.state == "failed" and "ZeroDivisionError" in upload.reason
    assert quarantine_path(QuarantinedFile.objects.get().pk).read_bytes() == b"poison"
    assert not spool_path(upload.pk).exists()


def test_a_file_that_fails_unforeseen_does_not_stop_the_others(receiving, monkeypatch):
    from sites_app.deid.engine import Deidentifier

    real, calls = Deidentifier.process, []

    def failing(self, data):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 2:
            raise RecursionError
        return real(self, data)

    monkeypatch.setattr(Deidentifier, "process", failing)

    found = received(receiving, zipped(simulate_mr(**SMALL).files))

    assert outcomes(found) == [("accepted", ""), ("quarantined", "unreadable"), ("accepted", "")]


def test_a_time_limit_is_not_taken_for_a_bad_file(receiving, monkeypatch):
    from sites_app.deid.engine import Deidentifier

    def late(self, data):  # type: ignore[no-untyped-def]
        raise SoftTimeLimitExceeded

    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(**SMALL).files), "application/zip")
    monkeypatch.setattr(Deidentifier, "process", late)

    with pytest.raises(SoftTimeLimitExceeded):
        processing.process_upload(upload_id=Upload.objects.get().pk)
    assert Upload.objects.get().state == "received" and not SubmissionFile.objects.exists()


def test_a_spool_file_that_is_gone_fails_its_upload(receiving):
    submission = receiving.open()
    receiving.send(submission, b"content")
    spool_path(Upload.objects.get().pk).unlink()
    receiving.complete(submission)
    receiving.work()

    assert receiving.read(submission)["state"] == "quarantined"
    assert "no longer on the hub's disk" in Upload.objects.get().reason
    assert not QuarantinedFile.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_store_everything_once(receiving):
    simulated = simulate_mr(slices=20, rows=16, columns=16)
    submission = receiving.open()
    receiving.send(submission, zipped(simulated.files[:12]), "application/zip")
    receiving.send(submission, zipped(simulated.files[8:]), "application/zip")
    receiving.complete(submission)
    uploads = list(Upload.objects.values_list("pk", flat=True))
    failures: list[Exception] = []

    def work(upload):  # type: ignore[no-untyped-def]
        try:
            processing.process_upload(upload_id=upload)
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(upload,)) for upload in uploads * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = receiving.read(submission)
    assert failures == []
    assert (found["state"], found["counts"]["accepted"], found["counts"]["duplicate"]) == ("accepted", 20, 4)
    assert Instance.objects.count() == Series.objects.get().instance_count == 20
    assert AuditEvent.objects.filter(action="submission.accepted").count() == 1
    assert AuditEvent.objects.filter(action="upload.processed").count() == 2
    assert all(read_instance(row) for row in Instance.objects.select_related("series"))


def test_the_sweeper_brings_back_what_lost_its_job(receiving):
    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(**SMALL).files), "application/zip")
    receiving.complete(submission)
    Job.objects.all().delete()
    assert sweeping.sweep_receiving() == 0
    earlier = timezone.now() - timedelta(minutes=1)
    Upload.objects.update(created_at=earlier)
    Submission.objects.update(completed_at=earlier)

    assert sweeping.sweep_receiving() == 1
    assert sweeping.sweep_receiving() == 0
    receiving.work()

    assert receiving.read(submission)["state"] == "accepted"


def test_the_sweeper_finishes_what_nobody_finished(receiving):
    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(**SMALL).files), "application/zip")
    receiving.work()
    receiving.complete(submission)
    Job.objects.all().delete()
    Submission.objects.update(completed_at=timezone.now() - timedelta(minutes=1))

    assert sweeping.sweep_receiving() == 1
    receiving.work()

    assert receiving.read(submission)["state"] == "accepted"


def test_the_janitor_removes_only_what_no_row_refers_to(receiving):
    submission = receiving.open()
    series = simulate_mr(**SMALL)
    body = [("a", series.files[0].data), ("b", series.files[1].data[:-9])]
    receiving.send(submission, multipart(body), MULTIPART)
    receiving.work()
    receiving.send(submission, b"still waiting")
    strays = [
        spool_path("01920000-0000-7000-8000-000000000001"),
        quarantine_path("01920000-0000-7000-8000-000000000002"),
        next(pack_files()).with_name("01920000-0000-7000-8000-000000000003.pack"),
        root("quarantine") / "names" / "01920000-0000-7000-8000-000000000004.json",
        root("quarantine") / "names" / ".partial-5",
        root("blobs") / "2c" / ".partial-6",
    ]
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"stray")
    kept = sorted(path for path in root("").rglob("*") if path.is_file() and path not in strays)

    assert sweeping.remove_orphans() == 0
    assert sweeping.remove_orphans(time.time() + 3700) == len(strays)

    assert sorted(path for path in root("").rglob("*") if path.is_file()) == kept


def test_job_arguments_hold_ids_only(receiving):
    received(receiving, zipped(simulate_mr(**SMALL).files))

    for arguments in Job.objects.filter(kind__startswith="sites.").values_list("arguments", flat=True):
        assert set(arguments) <= {"upload_id", "submission_id"}
        assert all(len(value) == 36 for value in arguments.values()), json.dumps(arguments)
