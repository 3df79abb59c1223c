"""Receipts: signed, complete, and reconciled with what was announced."""

from __future__ import annotations

import hashlib
import json

import pytest

from hub.core.signatures.keys import public_key
from hub.demo.simulator import simulate_mr
from sites_app.services import receipt
from tests.factories.dicom_files import MULTIPART, multipart, zipped

pytestmark = pytest.mark.django_db


def receipt_of(receiving, submission):  # type: ignore[no-untyped-def]
    return receiving.client.get(f"/api/v1/submissions/{submission}/receipt/")


def test_a_receipt_names_every_file_and_verifies(receiving):
    series = simulate_mr(slices=2, rows=16, columns=16)
    submission = receiving.open()
    receiving.send(submission, multipart([(f.name, f.data) for f in series.files] + [("n", b"x")]), MULTIPART)
    receiving.complete(submission)
    receiving.work()

    answer = receipt_of(receiving, submission)

    document = answer.json()
    content = document["receipt"]
    assert receipt.receipt_is_ours(answer.content)
    assert document["public_key"] == public_key()
    assert [(file["sha256"], file["outcome"]) for file in content["files"]] == [
        (hashlib.sha256(series.files[0].data).hexdigest(), "accepted"),
        (hashlib.sha256(series.files[1].data).hexdigest(), "accepted"),
        (hashlib.sha256(b"x").hexdigest(), "ignored"),
    ]
    assert content["deidentification_profile"]["version"] == 1
    assert content["subject"] == receiving.subject.code
    assert content["finished_at"] and content["completed_at"]


@pytest.mark.parametrize("field", ["state", "files", "finished_at"])
def test_a_changed_receipt_does_not_verify(receiving, field):
    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(slices=1, rows=16, columns=16).files), "application/zip")
    receiving.complete(submission)
    receiving.work()
    document = receipt_of(receiving, submission).json()

    document["receipt"][field] = []

    assert not receipt.receipt_is_ours(json.dumps(document).encode())
    assert not receipt.receipt_is_ours(b"{}")


def test_there_is_no_receipt_before_the_end(receiving):
    answer = receipt_of(receiving, receiving.open())

    assert answer.status_code == 404 and "this submission is open" in answer.json()["detail"]


def test_an_upper_layer_adds_its_part(receiving, monkeypatch):
    monkeypatch.setattr(receipt, "_parts", {})
    receipt.register_receipt_part("protocol", lambda submission: {"version": 3})
    submission = receiving.open()
    receiving.complete(submission)
    receiving.work()

    assert receipt_of(receiving, submission).json()["receipt"]["protocol"] == {"version": 3}


def test_what_was_announced_and_did_not_arrive_is_named(receiving):
    files = simulate_mr(slices=3, rows=16, columns=16).files
    manifest = [
        {"name": file.name, "sha256": hashlib.sha256(file.data).hexdigest(), "size": len(file.data)}
        for file in files
    ]
    manifest[1]["sha256"] = "a" * 64
    manifest.append({"name": "never/sent.dcm", "sha256": "b" * 64, "size": 5})
    submission = receiving.open(manifest=manifest)

    receiving.send(submission, zipped(files), "application/zip")
    receiving.complete(submission)
    receiving.work()

    found = receiving.read(submission)
    assert found["state"] == "accepted_with_rejections"
    assert found["reason"] == "2 files of the manifest did not arrive as announced."
    assert (found["counts"]["manifest_missing"], found["counts"]["manifest_different"]) == (1, 1)
    assert receipt_of(receiving, submission).json()["receipt"]["manifest_problems"] == [
        {"position": 2, "code": "different", "sha256": "a" * 64},
        {"position": 4, "code": "missing", "sha256": "b" * 64},
    ]


def test_a_kept_manifest_is_accepted(receiving):
    files = simulate_mr(slices=2, rows=16, columns=16).files
    manifest = [
        {"name": file.name, "sha256": hashlib.sha256(file.data).hexdigest().upper(), "size": len(file.data)}
        for file in files
    ]
    submission = receiving.open(manifest=manifest)
    receiving.send(submission, zipped(files), "application/zip")
    receiving.complete(submission)
    receiving.work()

    assert receiving.read(submission)["state"] == "accepted"
