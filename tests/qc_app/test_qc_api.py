"""The routes of this app: shapes, scope, actions, CSV."""

from __future__ import annotations

import csv
import io
import json
import uuid

import pydicom
import pytest
from rest_framework.test import APIClient

from hub.core.csv_export import safe_cell
from hub.demo.simulator import simulate_mr
from qc_app.models import Deviation, Query
from qc_app.protocol.schema import parse_protocol
from qc_app.services.drift import note_scanner_change
from qc_app.services.judgement import judge_protocol
from sites_app.dicom.aggregate import aggregate
from sites_app.ingest.pseudonyms import current_profile, deidentifier_for
from sites_app.models import Role, Submission
from tests.factories.qc_app import protocol_document
from tests.factories.sites_app import (
    PASSWORD,
    MembershipFactory,
    ScannerEpochFactory,
    ScannerFactory,
    SiteFactory,
    SubmissionFactory,
    UserFactory,
)

API = "/api/v1"


def client_of(user) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def client_for(world, role=Role.TRIAL_ADMINISTRATOR, site=None) -> APIClient:
    return client_of(MembershipFactory(trial=world.trial, role=role, site=site).user)


def test_verdicts_have_the_public_shape(world):
    series = world.check(RepetitionTime=2400.0)

    answer = client_for(world, Role.SPONSOR).get(f"{API}/series/{series.pk}/verdicts/").json()

    assert answer["outcome"] == "deviant"
    assert answer["expected_series"] == "t1"
    verdict = next(item for item in answer["verdicts"] if item["rule"] == "tr")
    assert verdict["expected"]["value"] == 2300
    assert verdict["protocol"] == {
        "id": str(world.protocol.pk), "version": 1, "digest": world.protocol.digest,
    }  # fmt: skip
    named = ("parameter", "observed", "unit", "outcome", "severity")
    assert [verdict[name] for name in named] == ["RepetitionTime", 2400.0, "ms", "deviant", "critical"]


def test_metrics_and_preview_of_a_series(world):
    series = world.check(pixels=True)
    client = client_for(world, Role.IMAGING_REVIEWER)

    answer = client.get(f"{API}/series/{series.pk}/metrics/").json()
    preview = client.get(f"{API}/series/{series.pk}/preview/")

    metric = next(item for item in answer["metrics"] if item["name"] == "missing_slices")
    assert (metric["value"], metric["outcome"]) == (0.0, "pass")
    assert metric["threshold"] == {"warn": None, "fail": {"min": None, "max": 0}, "required": True}
    assert metric["profile"]["digest"] == world.profile.digest
    assert metric["algorithm_version"]
    assert preview["Content-Type"] == "image/png"
    assert preview.content.startswith(b"\x89PNG")


def test_a_series_not_yet_checked_is_not_evaluable_and_has_no_preview(world):
    series = world.receive()
    client = client_for(world)

    assert client.get(f"{API}/series/{series.pk}/verdicts/").json()["outcome"] == "not_evaluable"
    assert client.get(f"{API}/series/{series.pk}/metrics/").json()["outcome"] == "not_evaluable"
    refused = client.get(f"{API}/series/{series.pk}/preview/", HTTP_ACCEPT="image/png")
    assert refused.status_code == 404


@pytest.mark.parametrize(
    "route",
    ["series/{series}/verdicts/", "series/{series}/metrics/", "series/{series}/preview/", "deviations/{deviation}/",
     "queries/{query}/", "protocols/{protocol}/", "qc-profiles/{profile}/", "trials/{trial}/summary/",
     "sites/{site}/scorecard/"],
)  # fmt: skip
def test_what_is_out_of_scope_does_not_exist(world, route):
    series = world.check(RepetitionTime=2400.0, pixels=True)
    path = route.format(
        series=series.pk, deviation=Deviation.objects.get(rule="tr").pk, query=Query.objects.get().pk,
        protocol=world.protocol.pk, profile=world.profile.pk, trial=world.trial.pk, site=world.visit.site_id,
    )  # fmt: skip

    assert client_for(world).get(f"{API}/{path}").status_code == 200
    assert client_of(UserFactory()).get(f"{API}/{path}").status_code == 404
    assert APIClient().get(f"{API}/{path}").status_code == 401


def test_a_coordinator_sees_and_filters_deviations_of_the_own_site_only(world):
    world.check(RepetitionTime=2400.0, PixelBandwidth=100.0)
    own = client_for(world, Role.SITE_COORDINATOR, world.visit.site)
    other = client_for(world, Role.SITE_COORDINATOR, SiteFactory(trial=world.trial))

    assert len(own.get(f"{API}/deviations/").json()["results"]) == 2
    assert other.get(f"{API}/deviations/").json()["results"] == []
    filters = {
        "trial": world.trial.pk, "site": world.visit.site_id, "subject": world.visit.subject_id,
        "visit": world.visit.pk, "state": "open", "severity": "critical", "parameter": "RepetitionTime", "rule": "tr",
    }  # fmt: skip
    (row,) = own.get(f"{API}/deviations/", filters).json()["results"]
    assert (row["rule"], row["observed"], row["state"], row["site_code"]) == (
        "tr", 2400.0, "open", world.visit.site.code,
    )  # fmt: skip
    assert own.get(f"{API}/deviations/", {"colour": "red"}).status_code == 400


def test_the_actions_of_a_deviation(world):
    world.check(RepetitionTime=2400.0)
    path = f"{API}/deviations/{Deviation.objects.get().pk}"
    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)
    manager = client_for(world, Role.DATA_MANAGER)

    assert site.post(f"{path}/acknowledge/").json()["state"] == "acknowledged"
    assert site.post(f"{path}/resolve/", {"reason": "Done"}, format="json").status_code == 403
    assert manager.post(f"{path}/resolve/", {}, format="json").status_code == 400
    wrong = {"reason": "R", "password": "wrong", "meaning": "I accept", "scope": "series"}
    assert manager.post(f"{path}/waive/", wrong, format="json").json()["code"] == "signature_refused"
    right = {**wrong, "password": PASSWORD, "expires_on": "2999-01-01"}
    waived = manager.post(f"{path}/waive/", right, format="json").json()
    assert (waived["state"], waived["waiver"]["expires_on"]) == ("waived", "2999-01-01")
    assert waived["signature"]
    assert manager.post(f"{path}/reject/", {"reason": "R"}, format="json").status_code == 409


def test_a_query_from_question_to_close(world):
    series = world.check(RepetitionTime=2400.0)
    monitor = client_for(world, Role.MONITOR)
    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)

    asked = monitor.post(
        f"{API}/queries/", {"series": str(series.pk), "is_rescan_request": True}, format="json"
    )
    assert asked.status_code == 201
    query = asked.json()
    assert query["is_rescan_request"] and not query["is_system"]
    path = f"{API}/queries/{query['id']}"
    assert monitor.post(f"{path}/answer/", {"text": "?"}, format="json").status_code == 403
    answered = site.post(f"{path}/answer/", {"text": "Repeated today."}, format="json").json()
    assert (answered["state"], answered["messages"][0]["text"]) == ("answered", "Repeated today.")
    assert monitor.post(f"{path}/close/", {"reason": "Seen"}, format="json").json()["state"] == "closed"
    foreign = {"series": str(uuid.uuid4()), "title": "T", "text": "X"}
    assert monitor.post(f"{API}/queries/", foreign, format="json").status_code == 404


def test_an_answer_sent_again_under_its_key_is_the_same_answer(world):
    world.check(RepetitionTime=2400.0)
    path = f"{API}/queries/{Query.objects.get().pk}/answer/"
    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)

    answers = [
        site.post(path, {"text": "Repeated."}, format="json", headers={"Idempotency-Key": "once"})
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1]["Idempotency-Replayed"] == "true"
    assert [len(answer.json()["messages"]) for answer in answers] == [1, 1]


def test_a_sponsor_does_not_see_who_wrote(world):
    world.check(RepetitionTime=2400.0)
    query = Query.objects.get()
    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)
    site.post(f"{API}/queries/{query.pk}/answer/", {"text": "Answer"}, format="json")

    seen = client_for(world, Role.SPONSOR).get(f"{API}/queries/{query.pk}/").json()
    known = client_for(world, Role.MONITOR).get(f"{API}/queries/{query.pk}/").json()

    assert seen["messages"][0]["author"] == ""
    assert known["messages"][0]["author"].startswith("Person")


def test_exports_are_csv_without_formulas(world):
    world.check(RepetitionTime=2400.0)
    Deviation.objects.update(label="=cmd()", reason="+1")

    answer = client_for(world).get(f"{API}/deviations/export/", {"trial": str(world.trial.pk)})

    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert answer["Content-Type"].startswith("text/csv")
    assert (rows[0]["label"], rows[0]["reason"], rows[0]["observed"]) == ("'=cmd()", "'+1", "2400.0")


def test_metrics_list_and_export(world):
    series = world.check(pixels=True)
    client = client_for(world)

    (row,) = client.get(f"{API}/metrics/", {"series": str(series.pk), "name": "slice_count"}).json()[
        "results"
    ]
    exported = b"".join(client.get(f"{API}/metrics/export/").streaming_content).decode()
    definitions = client.get(f"{API}/metrics/definitions/").json()

    assert row["value"] == 20.0
    assert len(exported.splitlines()) > 10
    assert {"name", "unit", "formula", "algorithm_version"} <= set(definitions[0])


@pytest.mark.parametrize(
    ("value", "cell"),
    [("=1", "'=1"), ("+1", "'+1"), ("-x", "'-x"), ("@a", "'@a"), ("\tx", "'\tx"), ("\rx", "'\rx"), (-1.5, "-1.5"),
     ("a=1", "a=1"), (None, ""), (True, "True")],
)  # fmt: skip
def test_a_cell_never_begins_like_a_formula(value, cell):
    assert safe_cell(value) == cell


def test_templates_and_schemas_are_served(world):
    client = client_for(world, Role.MONITOR)

    names = [item["name"] for item in client.get(f"{API}/protocol-templates/").json()["results"]]
    template = client.get(f"{API}/protocol-templates/{names[0]}/").json()

    assert parse_protocol(template).name
    assert client.get(f"{API}/protocol-schema/").json()["$id"] == "urn:hub:schema:protocol:1"
    assert client.get(f"{API}/qc-profile-schema/").json()["$id"] == "urn:hub:schema:qc-profile:1"
    assert client.get(f"{API}/protocol-templates/nothing/").status_code == 404


def test_reviewing_a_change_event_needs_a_comment_and_happens_once(world):
    scanner = ScannerFactory(site=world.visit.site)
    first, second = ScannerEpochFactory(scanner=scanner), ScannerEpochFactory(scanner=scanner)
    for _ in range(2):
        event = note_scanner_change(
            epoch_id=second.pk, previous_epoch_id=first.pk, series_id=world.receive().pk
        )
    path = f"{API}/change-events/{event.pk}"
    client = client_for(world)

    assert len(client.get(f"{API}/change-events/").json()["results"]) == 1
    assert client.get(f"{path}/").json()["old"] == first.software_versions
    assert client.post(f"{path}/review/", {}, format="json").status_code == 400
    assert client_for(world, Role.SPONSOR).post(
        f"{path}/review/", {"comment": "x"}, format="json"
    ).status_code == 403  # fmt: skip
    assert client.post(f"{path}/review/", {"comment": "Seen"}, format="json").json()["state"] == "reviewed"
    assert client.post(f"{path}/review/", {"comment": "Again"}, format="json").status_code == 409
    kinds = [item["kind"] for item in client.get(f"{API}/scanners/{scanner.pk}/timeline/").json()["entries"]]
    assert sorted(kinds) == ["change_event", "epoch", "epoch"]


def headers_of(files) -> list[dict]:
    found = []
    for file in files:
        dataset = pydicom.dcmread(io.BytesIO(file.data), stop_before_pixels=True)
        found.append(json.loads(dataset.to_json()))
    return found


@pytest.fixture
def submission(world):
    return SubmissionFactory(
        visit=world.visit, state=Submission.State.OPEN, profile=current_profile(world.trial)
    )


def test_precheck_gives_the_verdicts_of_receipt(world, submission):
    files = simulate_mr(seed=3, slices=12).files
    engine = deidentifier_for(submission.subject, submission.profile)
    received = aggregate(engine.process(file.data).facts for file in files).to_json()
    expected = judge_protocol(world.protocol, received, "baseline")

    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)
    answer = site.post(f"{API}/submissions/{submission.pk}/precheck/", headers_of(files), format="json")

    (series,) = answer.json()["series"]
    assert series["refused"] == []
    assert series["headers"] == 12
    assert (series["outcome"], series["expected_series"]) == (expected.outcome, expected.expected_key)
    assert series["verdicts"] == json.loads(json.dumps(expected.verdicts))
    assert {verdict["rule"] for verdict in series["verdicts"]} >= {"tr", "flip", "completeness.gaps"}


def test_precheck_of_one_header_leaves_completeness_open(world, submission):
    header = headers_of(simulate_mr(seed=3, slices=12).files)[0]

    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)
    answer = site.post(f"{API}/submissions/{submission.pk}/precheck/", header, format="json").json()

    outcomes = {item["rule"]: item["outcome"] for item in answer["series"][0]["verdicts"]}
    assert outcomes["tr"] == "compliant"
    assert {value for rule, value in outcomes.items() if rule.startswith("completeness.")} == {
        "not_evaluable"
    }
    assert answer["series"][0]["outcome"] != "compliant"


def test_precheck_names_what_is_no_header_and_who_may_not(world, submission):
    path = f"{API}/submissions/{submission.pk}/precheck/"
    site = client_for(world, Role.SITE_COORDINATOR, world.visit.site)

    assert site.post(path, "text", format="json").status_code == 400
    assert site.post(path, [], format="json").status_code == 400
    (broken,) = site.post(path, [{"00080060": 5}], format="json").json()["series"]
    assert broken["outcome"] == "not_evaluable"
    assert broken["refused"][0]["code"] in {"header_invalid", "uid_missing"}
    assert client_for(world, Role.SPONSOR).post(path, [{}], format="json").status_code == 403
    assert client_of(UserFactory()).post(path, [{}], format="json").status_code == 404


def test_the_protocol_from_draft_to_lock_by_api(make_world):
    world = make_world(locked=False)
    world.protocol.delete()
    client = client_for(world)

    assert client.post(f"{API}/protocols/", {"trial": str(world.trial.pk)}, format="json").status_code == 400
    created = client.post(
        f"{API}/protocols/", {"trial": str(world.trial.pk), "document": protocol_document()}, format="json"
    )
    assert created.status_code == 201
    path = f"{API}/protocols/{created.json()['id']}"
    bad = client.patch(f"{path}/", {"document": {"schema": "hub.protocol/1"}}, format="json")
    assert bad.status_code == 400
    assert {error["field"] for error in bad.json()["errors"]} == {""}
    assert client.post(f"{path}/import/", {"template": "fdg-pet"}, format="json").status_code == 200
    assert client.post(f"{path}/dry-run/").json()["series"] == 0
    assert client.get(f"{path}/dry-run/").json()["changes"] == []
    replaced = client.put(f"{path}/", {"document": protocol_document(), "title": "Head, new"}, format="json")
    assert (replaced.status_code, replaced.json()["title"]) == (200, "Head, new")
    locked = client.post(
        f"{path}/lock/", {"password": PASSWORD, "meaning": "I approve"}, format="json"
    ).json()
    assert (locked["state"], locked["version"]) == ("locked", 1)
    assert client.delete(f"{path}/").status_code == 409
    amended = client.post(f"{path}/amend/", {"reason": "More"}, format="json")
    assert (amended.status_code, amended.json()["version"]) == (201, 2)
    assert client.delete(f"{API}/protocols/{amended.json()['id']}/").status_code == 204
    assert (
        client_for(world, Role.SPONSOR).post(f"{path}/amend/", {"reason": "x"}, format="json").status_code
        == 403
    )


def test_a_qc_profile_begins_with_the_one_that_is_shipped(make_world):
    world = make_world(locked=False)
    world.profile.delete()
    client = client_for(world)

    created = client.post(f"{API}/qc-profiles/", {"trial": str(world.trial.pk)}, format="json").json()
    locked = client.post(
        f"{API}/qc-profiles/{created['id']}/lock/",
        {"password": PASSWORD, "meaning": "I approve"},
        format="json",
    )

    assert created["title"] == "Starting point"
    assert locked.json()["state"] == "locked"
