"""The API of harmonization and data lock: each route's happy path, its refusals, and who may."""

from __future__ import annotations

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from harmonization_cases import job_context, locked_combat, plan_document
from rest_framework.test import APIClient

from harmonization_app.models import FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import run_execution
from hub.core.ids import uuid7
from hub.core.models import Job
from hub.demo.features import as_csv, metadata
from sites_app.models import Role
from tests.factories.locked import lock_versions
from tests.factories.sites_app import PASSWORD, MembershipFactory, TrialFactory

pytestmark = pytest.mark.django_db
API = "/api/v1/"
SIGNATURE = {"password": PASSWORD, "meaning": "I approve"}


class Caller:
    """An API client of one person."""

    def __init__(self, person):
        self.client = APIClient()
        self.client.force_authenticate(person)

    def get(self, path, **query):
        return self.client.get(API + path, query)

    def post(self, path, data=None, kind="json"):
        return self.client.post(API + path, data or {}, format=kind)

    def patch(self, path, data):
        return self.client.patch(API + path, data, format="json")


@pytest.fixture
def stat(people):
    return Caller(people.statistician)


@pytest.fixture
def admin(people):
    return Caller(people.admin)


@pytest.fixture
def auditor(people):
    return Caller(people.auditor)


@pytest.fixture
def stranger(db):
    return Caller(MembershipFactory(trial=TrialFactory(), role=Role.STATISTICIAN).user)


def assert_problem(answer, status, code, field=""):
    body = json.loads(answer.content)
    assert answer.status_code == status, body
    assert answer["Content-Type"].startswith("application/problem+json")
    assert (body["status"], body["code"]) == (status, code)
    assert len(body["detail"]) > 10
    if field:
        assert field in json.dumps(body.get("errors", []))


def import_form(trial, content=None, **changes):
    return {
        "trial": str(trial.pk),
        "name": "Features",
        "file": SimpleUploadedFile("f.csv", content or as_csv().encode()),
        "metadata": json.dumps(metadata()),
        **changes,
    }


def executed(run_id):
    run_execution.execute_run(job_context(), run_id=run_id)
    Job.objects.update(state="succeeded")


def locked_plan_id(trial, people, stat, admin):
    locked_combat(people.admin)
    plan = stat.post("harmonization-plans/", {"trial": str(trial.pk), "document": plan_document()}).json()
    admin.post(f"harmonization-plans/{plan['id']}/lock/", SIGNATURE)
    return plan["id"]


def test_a_feature_set_is_imported_listed_and_downloaded(trial, stat, auditor):
    made = stat.post("feature-sets/", import_form(trial), kind="multipart")

    row = made.json()
    assert (made.status_code, row["row_count"], row["column_count"]) == (201, 120, 24)
    assert [item["id"] for item in auditor.get("feature-sets/", trial=str(trial.pk)).json()["results"]] == [
        row["id"]
    ]
    assert auditor.get(f"feature-sets/{row['id']}/").json()["digest"] == row["digest"]
    assert auditor.get(f"feature-sets/{row['id']}/data/").content.startswith(b"subject,visit,")


def test_a_table_sent_again_under_its_key_is_one_feature_set_and_another_is_refused(trial, stat):
    def send(content=None):
        form = import_form(trial, content) if content else import_form(trial)
        address = f"{API}feature-sets/"
        return stat.client.post(address, form, format="multipart", headers={"Idempotency-Key": "once"})

    first, again = send(), send()
    other = send("\n".join(as_csv().splitlines()[:-1]).encode())

    assert (first.status_code, again.status_code, again.json()["id"]) == (201, 201, first.json()["id"])
    assert again["Idempotency-Replayed"] == "true"
    assert first.json()["row_count"] == 120
    assert_problem(other, 409, "conflict")


def test_a_faulty_feature_set_is_a_problem_with_row_and_column(trial, stat):
    lines = as_csv().splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:-1], "abc"])

    answer = stat.post("feature-sets/", import_form(trial, "\n".join(lines).encode()), kind="multipart")

    assert_problem(answer, answer.status_code, answer.json()["code"], "row 4")
    assert answer.status_code in range(400, 500)
    assert FeatureSet.objects.count() == 0


def test_metadata_that_is_no_json_is_a_problem(trial, stat):
    answer = stat.post("feature-sets/", import_form(trial, metadata="{"), kind="multipart")

    assert_problem(answer, 400, "invalid_input")


def test_a_set_of_metrics_that_no_series_has_is_a_problem(trial, stat):
    answer = stat.post(
        "feature-sets/", {"trial": str(trial.pk), "name": "QC", "metrics": ["snr"], "expected_key": "t1"}
    )

    assert_problem(answer, 400, "invalid_input")
    assert "snr" in answer.json()["detail"]


def test_roles_and_scope_of_feature_sets(trial, people, features, auditor, stranger):
    coordinator = Caller(people.coordinator)

    assert_problem(auditor.post("feature-sets/", import_form(trial), kind="multipart"), 403, "not_allowed")
    assert_problem(
        stranger.post("feature-sets/", import_form(trial), kind="multipart"), 400, "invalid_input", "trial"
    )
    for outsider in (stranger, coordinator):
        assert_problem(outsider.get(f"feature-sets/{features.pk}/"), 404, "not_found")
        assert_problem(outsider.get(f"feature-sets/{features.pk}/data/"), 404, "not_found")
        assert outsider.get("feature-sets/").json()["results"] == []


def test_algorithms_are_described(stat):
    rows = stat.get("algorithms/").json()["results"]

    assert {"combat", "neurocombat"} <= {row["id"] for row in rows}
    assert stat.get("algorithms/combat/").json()["parameters_schema"]["properties"]["eb"]["default"] is True
    assert_problem(stat.get("algorithms/kombat/"), 404, "not_found")


def test_an_algorithm_version_is_verified_locked_and_retired(stat, admin, people):
    rows = stat.get("algorithm-versions/", algorithm="combat").json()["results"]
    path = f"algorithm-versions/{rows[0]['id']}/"
    assert_problem(admin.post(path + "lock/", SIGNATURE), 409, "conflict")

    queued = stat.post(path + "verify/")
    algorithm_services.verify_algorithm(version_id=rows[0]["id"])

    assert (queued.status_code, queued.json()["kind"]) == (202, "harmonization.verify_algorithm")
    assert_problem(stat.post(path + "lock/", SIGNATURE), 403, "not_allowed")
    assert_problem(admin.post(path + "lock/", {**SIGNATURE, "password": "x"}), 403, "signature_refused")
    signed = admin.post(path + "lock/", SIGNATURE).json()
    assert (signed["state"], signed["signature"] is None, signed["second_signature"]) == (
        "verified",
        False,
        None,
    )
    assert_problem(admin.post(path + "lock/", SIGNATURE), 409, "conflict")
    assert Caller(people.second_admin).post(path + "lock/", SIGNATURE).json()["state"] == "locked"
    assert admin.post(path + "retire/", {"reason": "Replaced"}).json()["state"] == "retired"
    assert_problem(admin.post(path + "retire/", {"reason": "Again"}), 409, "conflict")


def test_a_coordinator_may_not_verify(stat, people):
    row = stat.get("algorithm-versions/", algorithm="combat").json()["results"][0]

    assert_problem(
        Caller(people.coordinator).post(f"algorithm-versions/{row['id']}/verify/"), 403, "not_allowed"
    )


def test_a_plan_is_drafted_changed_checked_locked_and_amended(trial, people, features, stat, admin):
    locked_combat(people.admin)
    made = stat.post("harmonization-plans/", {"trial": str(trial.pk), "document": plan_document()})
    path = f"harmonization-plans/{made.json()['id']}/"
    changed = stat.patch(path, {"document": plan_document(title="Another title")})
    gate = stat.post(path + "check/", {"feature_set": str(features.pk)})
    locked = admin.post(path + "lock/", SIGNATURE)
    amended = stat.post(path + "amend/", {"reason": "One more year"})

    assert (made.status_code, made.json()["state"]) == (201, "draft")
    assert changed.json()["title"] == "Another title"
    assert gate.json()["passes"] is True
    assert locked.json()["state"] == "locked"
    assert (amended.status_code, amended.json()["version"]) == (201, 2)
    assert_problem(admin.post(path + "lock/", SIGNATURE), 409, "conflict")


def test_faults_of_plans_are_problems(trial, features, stat, admin, auditor, stranger):
    draft = {"trial": str(trial.pk), "document": plan_document()}
    unknown = {**draft, "document": plan_document(algorithm="kombat")}
    assert_problem(stat.post("harmonization-plans/", unknown), 400, "plan_invalid", "/algorithm")
    assert_problem(auditor.post("harmonization-plans/", draft), 403, "not_allowed")
    path = f"harmonization-plans/{stat.post('harmonization-plans/', draft).json()['id']}/"

    missing = {"feature_set": str(uuid7())}
    assert_problem(stat.post(path + "check/", missing), 400, "invalid_input", "feature_set")
    assert_problem(stat.post(path + "lock/", SIGNATURE), 403, "not_allowed")
    assert_problem(admin.post(path + "lock/", SIGNATURE), 409, "conflict")
    assert_problem(stat.post(path + "amend/", {"reason": "x"}), 409, "conflict")
    assert_problem(stranger.get(path), 404, "not_found")
    assert HarmonizationPlan.objects.get().state == "draft"


def test_a_run_is_started_followed_read_and_downloaded(trial, people, features, stat, admin, auditor):
    plan = locked_plan_id(trial, people, stat, admin)
    started = stat.post("harmonization-runs/", {"plan": plan, "feature_set": str(features.pk)})
    path = f"harmonization-runs/{started.json()['id']}/"
    assert (started.status_code, started.json()["kind"], started.json()["progress"]) == (202, "primary", 0.0)
    assert_problem(auditor.get(path + "data/"), 404, "not_found")

    executed(started.json()["id"])

    row = auditor.get(path).json()
    assert (row["state"], row["progress"], row["diagnostics"]["kind"]) == ("succeeded", 1.0, "primary")
    assert auditor.get(path + "data/").content.startswith(b"subject,visit,batch,")
    assert auditor.get(path + "model/").content[:2] == b"PK"
    assert auditor.get(path + "report/")["Content-Type"].startswith("text/html")
    assert auditor.get(path + "report/", **{"as": "json"}).json()["kind"] == "primary"
    assert_problem(auditor.get(path + "report/", **{"as": "docx"}), 400, "invalid_input", "as")
    again = stat.post(path + "rerun/")
    assert (again.status_code, again.json()["rerun_of"]) == (202, started.json()["id"])


def test_an_inline_specification_is_exploratory(features, stat):
    answer = stat.post(
        "harmonization-runs/", {"specification": plan_document(), "feature_set": str(features.pk)}
    )

    assert (answer.json()["kind"], answer.json()["exploratory_reason"][:7]) == ("exploratory", "no plan")


def test_a_run_follows_its_job_that_is_cancelled_before_it_begins(features, stat):
    spec = {"specification": plan_document(), "feature_set": str(features.pk)}
    started = HarmonizationRun.objects.get(pk=stat.post("harmonization-runs/", spec).json()["id"])

    answer = stat.post(f"jobs/{started.job_id}/cancel/")

    run = HarmonizationRun.objects.get(pk=started.pk)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert (run.state, run.reason) == ("cancelled", "Cancelled on request.")
    assert run.finished_at is not None


def test_faults_of_runs_are_problems(features, stat, auditor, stranger):
    spec = {"specification": plan_document(), "feature_set": str(features.pk)}
    assert_problem(stat.post("harmonization-runs/", {"feature_set": str(features.pk)}), 400, "invalid_input")
    absent = {**spec, "feature_set": str(uuid7())}
    assert_problem(stat.post("harmonization-runs/", absent), 400, "invalid_input", "feature_set")
    assert_problem(auditor.post("harmonization-runs/", spec), 403, "not_allowed")
    path = f"harmonization-runs/{stat.post('harmonization-runs/', spec).json()['id']}/"

    assert_problem(stranger.get(path), 404, "not_found")
    assert_problem(auditor.post(path + "cancel/"), 403, "not_allowed")
    assert_problem(stat.post(path + "rerun/"), 409, "conflict")
    assert stat.post(path + "cancel/").json()["state"] == "cancelled"
    assert_problem(stat.post(path + "cancel/"), 409, "conflict")
    assert HarmonizationRun.objects.count() == 1


def test_the_data_lock_goes_its_way(trial, people, stat, admin, auditor):
    lock_versions(trial, people.admin)
    assert_problem(stat.post("data-locks/", {"trial": str(trial.pk)}), 403, "not_allowed")
    opened = admin.post("data-locks/", {"trial": str(trial.pk)})
    path = f"data-locks/{opened.json()['id']}/"
    assert_problem(admin.post(path + "lock/", SIGNATURE), 409, "conflict")
    assert_problem(auditor.get(path + "manifest/"), 404, "not_found")
    assert admin.post(path + "freeze/").json()["state"] == "frozen"
    assert_problem(admin.post(path + "unfreeze/", {"reason": ""}), 400, "invalid_input", "reason")
    assert admin.post(path + "unfreeze/", {"reason": "One more site"}).json()["state"] == "open"
    admin.post(path + "freeze/")

    checklist = auditor.get(path + "checklist/").json()
    locked = admin.post(path + "lock/", SIGNATURE).json()

    assert {item["code"]: item["met"] for item in checklist}["protocol_locked"] is True
    assert locked["state"] == "locked"
    assert auditor.get(path + "manifest/").json()["trial"]["code"] == trial.code
    assert_problem(admin.post(path + "freeze/"), 409, "conflict")


def test_the_lock_names_what_is_not_met(trial, admin, stranger):
    path = f"data-locks/{admin.post('data-locks/', {'trial': str(trial.pk)}).json()['id']}/"
    admin.post(path + "freeze/")

    assert_problem(admin.post(path + "lock/", SIGNATURE), 409, "conflict", "protocol_locked")
    assert_problem(stranger.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "route",
    [
        "feature-sets",
        "algorithms",
        "algorithm-versions",
        "harmonization-plans",
        "harmonization-runs",
        "data-locks",
    ],
)
def test_nothing_is_open_without_login(db, route):
    assert APIClient().get(f"{API}{route}/").status_code == 401
