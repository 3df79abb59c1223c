"""What the API says of plans, their gate and their runs."""

from __future__ import annotations

import json

import pytest
from harmonization_cases import job_context, locked_combat, plan_document
from image_cases import epochs_of_a_scanner, image
from rest_framework.test import APIClient

from harmonization_app.models import HarmonizationPlan, HarmonizationRun
from harmonization_app.services import run_execution
from harmonization_app.services.lock_checklist import checklist
from hub.core.audit.models import AuditEvent
from hub.core.models import Job
from sites_app.models import Role
from tests.factories.sites_app import PASSWORD, MembershipFactory, TrialFactory

API = "/api/v1"


@pytest.fixture
def finished_run(features, api):
    """An exploratory run that has succeeded."""
    body = {"feature_set": str(features.pk), "specification": plan_document(sensitivity=[])}
    started = post(api, "harmonization-runs/", body).json()["id"]
    run_execution.execute_run(job_context(), run_id=started)
    return started


@pytest.fixture
def api(people):
    return logged_in(people.statistician)


def logged_in(user):
    client = APIClient()
    client.force_authenticate(user)
    return client


def post(client, path, body):
    return client.post(f"{API}/{path}", body, format="json")


def saved(api, trial, **changes):
    document = plan_document(**changes)
    answer = post(api, "harmonization-plans/", {"trial": str(trial.pk), "document": document})
    assert answer.status_code == 201, answer.json()
    return answer.json()["id"]


def test_a_check_shows_what_the_plan_makes_of_images_and_scanners(trial, features, api) -> None:
    batch = features.rows[0]["batch"]
    rows = [item["row"] for item in features.rows if item["batch"] == batch]
    first, second = epochs_of_a_scanner(trial, "A", "B")
    image(trial, rows[0], epoch=first)
    image(trial, rows[1], epoch=second)
    image(trial, rows[2], protocol_outcome="deviant")
    plan = saved(api, trial, image_rows={"series": ["t1"]}, scanner_changes="keep")

    answer = post(api, f"harmonization-plans/{plan}/check/", {"feature_set": str(features.pk)}).json()

    found = {item["code"]: item for item in answer["findings"]}
    assert answer["passes"] is False
    assert found["deviant_rows_unplanned"]["rows"] == [rows[2]]
    assert found["scanner_change_kept"]["batches"] == [batch]
    assert found["memory"]["severity"] == "info"


def test_each_fault_of_a_plan_is_named_by_its_pointer(trial, api) -> None:
    document = plan_document(
        sensitivity=[{"kind": "algorithm", "algorithm": "longcombat"}], calibration={"parameters": {}}
    )

    answer = post(api, "harmonization-plans/", {"trial": str(trial.pk), "document": document})

    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, "plan_invalid")
    assert {"/sensitivity/0/parameters/subject", "/calibration/parameters/time"} <= {
        item["field"] for item in body["errors"]
    }


def test_a_run_tells_its_memory_and_what_it_decided_on_rows(trial, features, api) -> None:
    row = features.rows[0]["row"]
    image(trial, row, qc_outcome="fail")
    body = {"feature_set": str(features.pk), "specification": plan_document(sensitivity=[])}

    started = post(api, "harmonization-runs/", body)
    run_execution.execute_run(job_context(), run_id=started.json()["id"])
    run = api.get(f"{API}/harmonization-runs/{started.json()['id']}/").json()

    assert started.status_code == 202
    assert 0 < started.json()["estimate"]["bytes"] <= started.json()["estimate"]["limit_bytes"]
    assert run["row_decisions"]["excluded"] == {row: "failed QC: t1"}
    assert run["row_decisions"]["without_images"] == len(features.rows) - 1


def test_a_run_over_the_memory_limit_is_a_problem_and_no_run(features, api, settings) -> None:
    settings.HUB_RUN_MEMORY_LIMIT_MB = 10
    body = {"feature_set": str(features.pk), "specification": plan_document()}

    answer = post(api, "harmonization-runs/", body)

    assert (answer.status_code, answer.json()["code"]) == (400, "run_too_large")
    assert "10 MB are allowed" in answer.json()["detail"]
    assert HarmonizationRun.objects.count() == 0
    assert Job.objects.count() == 0


def test_people_of_another_trial_learn_nothing_of_images_by_checking(trial, features, api) -> None:
    image(trial, features.rows[0]["row"], protocol_outcome="deviant")
    plan = saved(api, trial)
    other = TrialFactory()
    stranger = logged_in(MembershipFactory(trial=other, role=Role.STATISTICIAN).user)

    own = saved(stranger, other)
    there = post(stranger, f"harmonization-plans/{plan}/check/", {"feature_set": str(features.pk)})
    here = post(stranger, f"harmonization-plans/{own}/check/", {"feature_set": str(features.pk)})

    assert there.status_code == 404
    assert here.status_code in (400, 404)
    for answer in (there, here):
        assert features.rows[0]["row"] not in json.dumps(answer.json())


def test_a_coordinator_of_one_site_cannot_check_a_plan(trial, features, api, people) -> None:
    plan = saved(api, trial)

    answer = post(
        logged_in(people.coordinator),
        f"harmonization-plans/{plan}/check/",
        {"feature_set": str(features.pk)},
    )

    assert answer.status_code == 404


def test_a_draft_is_replaced_under_its_own_name_only(trial, api) -> None:
    plan = saved(api, trial)
    name = plan_document()["name"]

    changed = api.put(
        f"{API}/harmonization-plans/{plan}/", {"document": plan_document(title="Other words")}, format="json"
    )
    renamed = api.patch(
        f"{API}/harmonization-plans/{plan}/", {"document": plan_document(name="second")}, format="json"
    )

    assert (changed.status_code, changed.json()["id"], changed.json()["title"]) == (200, plan, "Other words")
    assert (renamed.status_code, renamed.json()["code"]) == (400, "invalid_input")
    assert renamed.json()["errors"] == [{"field": "/name", "message": f"must stay {name}"}]
    assert list(HarmonizationPlan.objects.values_list("name", flat=True)) == [name]


def test_a_draft_is_discarded_with_an_audit_event(trial, api) -> None:
    plan = saved(api, trial)

    answer = api.delete(f"{API}/harmonization-plans/{plan}/")

    assert (answer.status_code, HarmonizationPlan.objects.count()) == (204, 0)
    event = AuditEvent.objects.get(action="harmonization_plan.draft_discarded")
    assert event.object_id == plan


def test_neither_a_locked_plan_nor_the_draft_of_a_run_is_discarded_or_changed(
    trial, features, api, people
) -> None:
    used, locked = saved(api, trial, sensitivity=[]), saved(api, trial, name="second")
    run = post(api, "harmonization-runs/", {"feature_set": str(features.pk), "plan": used})
    assert run.status_code == 202
    locked_combat(people.admin)
    signature = {"password": PASSWORD, "meaning": "I approve"}
    assert post(logged_in(people.admin), f"harmonization-plans/{locked}/lock/", signature).status_code == 200

    answers = [api.delete(f"{API}/harmonization-plans/{plan}/") for plan in (used, locked)]
    change = {"document": plan_document(name="second")}
    answers.append(api.put(f"{API}/harmonization-plans/{locked}/", change, format="json"))

    assert [answer.status_code for answer in answers] == [409, 409, 409]
    assert "record" in answers[0].json()["detail"]
    assert HarmonizationPlan.objects.count() == 2


def test_a_draft_that_was_tried_does_not_keep_the_data_from_being_locked(trial, features, api) -> None:
    tried, forgotten = saved(api, trial, sensitivity=[]), saved(api, trial, name="second")

    def conditions():
        return {
            item.code: (item.count, item.blocking)
            for item in checklist(trial)
            if item.code in ("no_drafts", "no_tried_drafts")
        }

    assert conditions() == {"no_drafts": (2, True), "no_tried_drafts": (0, False)}
    for _ in range(2):
        assert (
            post(api, "harmonization-runs/", {"feature_set": str(features.pk), "plan": tried}).status_code
            == 202
        )
    assert conditions() == {"no_drafts": (1, True), "no_tried_drafts": (1, False)}
    assert api.delete(f"{API}/harmonization-plans/{forgotten}/").status_code == 204
    assert conditions() == {"no_drafts": (0, True), "no_tried_drafts": (1, False)}


def test_a_repeated_request_for_a_rerun_starts_one(finished_run, api) -> None:
    path = f"{API}/harmonization-runs/{finished_run}/rerun/"

    answers = [api.post(path, format="json", headers={"Idempotency-Key": "once"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"] != finished_run
    assert HarmonizationRun.objects.filter(rerun_of=finished_run).count() == 1


@pytest.mark.parametrize(
    ("route", "accept", "content_type"),
    [
        ("data", "text/csv", "text/csv; charset=utf-8"),
        ("data", "application/json, */*;q=0.5", "text/csv; charset=utf-8"),
        ("model", "application/zip", "application/zip"),
        ("report", "text/html", "text/html; charset=utf-8"),
        ("report", "*/*", "text/html; charset=utf-8"),
        ("report", "application/json", "text/html; charset=utf-8"),
        ("report", "application/pdf", "application/pdf"),
    ],
)
def test_the_outputs_of_a_run_come_to_who_accepts_their_kind(
    finished_run, api, route, accept, content_type
) -> None:
    answer = api.get(f"{API}/harmonization-runs/{finished_run}/{route}/", headers={"Accept": accept})

    assert (answer.status_code, answer["Content-Type"]) == (200, content_type)


def test_a_feature_set_comes_to_who_accepts_csv(features, api) -> None:
    answer = api.get(f"{API}/feature-sets/{features.pk}/data/", headers={"Accept": "text/csv"})

    assert (answer.status_code, answer["Content-Type"]) == (200, "text/csv; charset=utf-8")
