"""Submissions: opening, states, cancelling, scope."""

from __future__ import annotations

import json

import pytest

from hub.core.audit.models import AuditEvent
from hub.core.storage.blobs import root
from hub.demo.identifiers import PLANTED_MARK
from hub.demo.simulator import default_acquisition, simulate_mr
from sites_app.ingest.packs import pack_files
from sites_app.models import (
    DeidentificationProfile,
    Instance,
    Role,
    Series,
    Submission,
    SubmissionFile,
    Trial,
    Upload,
    Visit,
)
from sites_app.models.submission import TRANSITIONS
from sites_app.services.submission import finish_submission
from tests.factories.dicom_files import zipped
from tests.factories.sites_app import MembershipFactory, SiteFactory, SubjectFactory, UserFactory

pytestmark = pytest.mark.django_db


def test_a_submission_is_opened_by_ids_and_by_codes(receiving):
    by_id = receiving.open()
    by_code = receiving.open(
        trial=receiving.trial.code,
        site=receiving.site.code,
        subject=receiving.subject.code,
        visit=receiving.definition.code,
    )

    rows = Submission.objects.filter(pk__in=[by_id, by_code])
    assert {row.visit_id for row in rows} == {receiving.visit.pk}
    assert {row.state for row in rows} == {"open"}
    assert DeidentificationProfile.objects.get().version == 1


def test_a_visit_is_made_from_its_definition(receiving):
    other = SubjectFactory(site=receiving.site)

    receiving.open(subject=other.code, visit=receiving.definition.code)

    assert Visit.objects.filter(subject=other, definition=receiving.definition).count() == 1


@pytest.mark.parametrize(
    ("field", "value", "status", "code"),
    [
        ("trial", "NO-SUCH", 404, "not_found"),
        ("site", "NO-SUCH", 404, "not_found"),
        ("subject", "NO-SUCH", 400, "unknown_subject"),
        ("visit", "NO-SUCH", 400, "unknown_visit"),
        ("visit", "", 400, "invalid_input"),
        ("manifest", [{"name": "a", "sha256": "short"}], 400, "invalid_input"),
        ("channel", "no spaces", 400, "invalid_input"),
    ],
)
def test_what_a_submission_names_wrongly_is_refused_by_name(receiving, field, value, status, code):
    body = {"trial": receiving.trial.code, "site": receiving.site.code}
    body |= {"subject": receiving.subject.code, "visit": receiving.definition.code, field: value}

    answer = receiving.client.post("/api/v1/submissions/", body, format="json")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert field in json.dumps(answer.json()["errors"])
    assert not Submission.objects.exists()


def test_a_subject_of_another_site_is_unknown(receiving):
    foreign = SubjectFactory(site=SiteFactory(trial=receiving.trial))
    body = {"trial": receiving.trial.code, "site": receiving.site.code}

    answer = receiving.client.post(
        "/api/v1/submissions/",
        body | {"subject": str(foreign.pk), "visit": receiving.definition.code},
        format="json",
    )

    assert answer.json()["code"] == "unknown_subject"


def test_who_only_reads_may_not_open_a_submission(receiving):
    client = receiving.client_of(receiving.member(Role.MONITOR))
    body = {"trial": receiving.trial.code, "site": receiving.site.code}
    body |= {"subject": receiving.subject.code, "visit": receiving.definition.code}

    assert client.post("/api/v1/submissions/", body, format="json").status_code == 403
    assert not Submission.objects.exists()


@pytest.mark.parametrize("state", ["frozen", "locked"])
def test_a_trial_that_is_not_open_takes_no_submission(receiving, state):
    Trial.objects.filter(pk=receiving.trial.pk).update(lock_state=state)
    body = {"trial": receiving.trial.code, "site": receiving.site.code}
    body |= {"subject": receiving.subject.code, "visit": receiving.definition.code}

    answer = receiving.client.post("/api/v1/submissions/", body, format="json")

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert state in answer.json()["detail"]


def test_a_frozen_trial_takes_no_files_for_an_open_submission(receiving):
    submission = receiving.open()
    Trial.objects.filter(pk=receiving.trial.pk).update(lock_state="frozen")

    assert receiving.send(submission, b"content").status_code == 409
    assert list(root("spool").iterdir()) == []


EXPECTED = {
    # state: (send, complete, cancel)
    "open": (202, 202, 200),
    "received": (409, 409, 409),
    "processing": (409, 409, 409),
    "accepted": (409, 409, 409),
    "accepted_with_rejections": (409, 409, 409),
    "quarantined": (409, 409, 409),
    "failed": (409, 409, 409),
    "cancelled": (409, 409, 409),
}


@pytest.mark.parametrize("state", list(TRANSITIONS))
def test_every_state_answers_every_action(receiving, state):
    def prepared():  # type: ignore[no-untyped-def]
        submission = receiving.open()
        Submission.objects.filter(pk=submission).update(state=state)
        return submission

    answers = []
    for act in ("send", "complete", "cancel"):
        submission = prepared()
        if act == "send":
            answers.append(receiving.send(submission, b"any bytes").status_code)
        else:
            answers.append(receiving.client.post(f"/api/v1/submissions/{submission}/{act}/").status_code)
        after = Submission.objects.get(pk=submission).state
        allowed = {"complete": "received", "cancel": "cancelled"}.get(act, state)
        assert after == (allowed if state == "open" else state)

    assert tuple(answers) == EXPECTED[state]
    assert finish_submission(submission_id=prepared()) is (state in ("received", "processing"))


def test_an_empty_submission_fails_with_its_reason(receiving):
    submission = receiving.open()

    answer = receiving.complete(submission)
    receiving.work()

    assert (answer.status_code, answer.json()["state"]) == (202, "received")
    found = receiving.read(submission)
    assert (found["state"], found["reason"]) == ("failed", "Nothing was sent.")
    assert found["receipt"] is not None


def test_completing_again_under_its_key_is_the_same_answer(receiving):
    submission = receiving.open()
    path = f"/api/v1/submissions/{submission}/complete/"

    answers = [receiving.client.post(path, headers={"Idempotency-Key": "once"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert receiving.client.post(path).status_code == 409


@pytest.mark.django_db(transaction=True)
def test_cancelling_takes_back_what_was_processed(receiving):
    series = simulate_mr(slices=3, rows=16, columns=16)
    submission = receiving.open()
    receiving.send(submission, zipped(series.files, {"picture.png": b"\x89PNG"}), "application/zip")
    receiving.work()
    receiving.send(submission, b"waiting on the spool")
    assert Instance.objects.count() == 3 and len(list(pack_files())) == 1

    answer = receiving.client.post(f"/api/v1/submissions/{submission}/cancel/")

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    receiving.subject.refresh_from_db()
    assert receiving.subject.patient_digest == ""
    assert (
        not Instance.objects.exists() and not Series.objects.exists() and not SubmissionFile.objects.exists()
    )
    assert list(pack_files()) == [] and list(root("spool").iterdir()) == []
    assert set(Upload.objects.values_list("state", flat=True)) == {"failed"}
    assert receiving.work() == 1 and not Instance.objects.exists()


def test_a_series_is_not_shown_before_its_submission_is_finished(receiving):
    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(slices=2, rows=16, columns=16).files), "application/zip")
    receiving.work()

    assert Series.objects.count() == 1
    assert receiving.client.get("/api/v1/series/").json()["results"] == []
    assert receiving.client.get("/api/v1/instances/").json()["results"] == []


def test_another_sites_people_see_nothing(receiving):
    submission = receiving.open()
    receiving.send(submission, zipped(simulate_mr(slices=2, rows=16, columns=16).files), "application/zip")
    receiving.complete(submission)
    receiving.work()
    other_site = SiteFactory(trial=receiving.trial)
    client = receiving.client_of(receiving.member(Role.SITE_COORDINATOR, other_site))
    series = Series.objects.get().pk
    paths = [f"submissions/{submission}/", f"submissions/{submission}/files/"]
    paths += [f"submissions/{submission}/receipt/", f"series/{series}/", f"series/{series}/parameters/"]
    paths += [f"series/{series}/archive/", f"studies/{Series.objects.get().study_id}/"]
    paths += [f"instances/{Instance.objects.first().pk}/"]

    assert {client.get(f"/api/v1/{path}").status_code for path in paths} == {404}
    for act in ("complete", "cancel", "files"):
        assert client.post(f"/api/v1/submissions/{submission}/{act}/").status_code == 404
    for resource in ("submissions", "series", "studies", "instances"):
        assert client.get(f"/api/v1/{resource}/").json()["results"] == []
    assert {receiving.client.get(f"/api/v1/{path}").status_code for path in paths} == {200}


def test_nothing_identifying_is_in_rows_audit_or_packs(receiving):
    series = simulate_mr(slices=2, rows=16, columns=16)
    name = f"{PLANTED_MARK}^JOHN.dcm"
    submission = receiving.open(manifest=[{"name": name, "sha256": "0" * 64, "size": 1}])
    receiving.send(submission, zipped(series.files, {name: b"no image"}), "application/zip")
    receiving.complete(submission)
    receiving.work()

    rows = [str(list(model.objects.values())) for model in (Submission, Upload, SubmissionFile, Series)]
    rows += list(AuditEvent.objects.values_list("payload", flat=True))
    stored = rows + [path.read_bytes().decode("latin-1") for path in pack_files()]
    # The station's name stays by the Retain Device Identity Option (PS3.15 table E.1-1).
    station = default_acquisition(0).identity.station
    assert len(stored) > 5
    assert not [text for text in stored if PLANTED_MARK in text.replace(station, "")]


def test_original_names_are_shown_to_those_who_handle_the_files_only(receiving):
    submission = receiving.open()
    receiving.send(submission, zipped([], {"scan.txt": b"words"}), "application/zip")
    receiving.complete(submission)
    receiving.work()
    auditor = UserFactory()
    MembershipFactory(user=auditor, trial=receiving.trial, role=Role.AUDITOR)

    own = receiving.read(submission)["files"][0]["name"]
    theirs = receiving.client_of(auditor).get(f"/api/v1/submissions/{submission}/").json()["files"][0]

    assert (own, theirs["name"]) == ("scan.txt", None)
    assert theirs["code"] == "ignored_text"


def test_an_unexpected_failure_of_finishing_ends_in_failed(receiving, monkeypatch):
    submission = receiving.open()
    monkeypatch.setattr("sites_app.services.submission._conclude", lambda row: 1 / 0)

    receiving.complete(submission)
    assert receiving.work() == 3

    found = receiving.read(submission)
    assert found["state"] == "failed" and "ZeroDivisionError" in found["reason"]
