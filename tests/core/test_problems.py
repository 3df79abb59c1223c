"""How the API refuses: problem documents, Idempotency-Key, ETag, pages of a list, filters and order."""

from __future__ import annotations

import pytest
from django.test import Client
from rest_framework.test import APIClient

from hub.core.api.idempotency_models import IdempotencyRecord
from hub.core.canonical import digest
from sites_app.models import Role, Trial
from sites_app.services import people
from tests.factories.sites_app import MembershipFactory, SiteFactory, TrialFactory, UserFactory

pytestmark = pytest.mark.django_db
TRIALS = "/api/v1/trials/"
BODY = {"code": "NEW", "title": "New"}


@pytest.fixture
def api():
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(UserFactory(is_superuser=True))
    return client


def problem(response):
    assert response["Content-Type"] == "application/problem+json"
    document = response.json()
    assert set(document) >= {"type", "title", "status", "code", "detail"}
    assert document["status"] == response.status_code
    return document["status"], document["code"]


def test_each_refusal_is_a_problem_document(api):
    nobody, member = APIClient(), APIClient()
    member.force_authenticate(MembershipFactory(role=Role.SPONSOR).user)
    absent = f"{TRIALS}00000000-0000-7000-8000-000000000000/"

    assert problem(api.post(TRIALS, {}, format="json")) == (400, "invalid_input")
    assert problem(api.post(TRIALS, "{", content_type="application/json"))[0] == 400
    assert problem(nobody.get(TRIALS)) == (401, "not_authenticated")
    assert problem(member.post(TRIALS, BODY, format="json")) == (403, "not_allowed")
    assert problem(api.get(absent)) == (404, "not_found")
    assert problem(api.get("/api/v1/nothing/")) == (404, "not_found")
    assert problem(api.delete(TRIALS)) == (405, "method_not_allowed")
    assert problem(api.post(TRIALS, "a=b", content_type="text/plain")) == (415, "unsupported_media_type")


def test_an_unexpected_failure_is_a_problem_without_its_inside(api, monkeypatch):
    def fail(**given):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(people, "create_trial", fail)
    answer = api.post(TRIALS, BODY, format="json")

    assert problem(answer) == (500, "internal_error")
    assert "secret inside" not in answer.content.decode()


def test_a_body_beyond_the_limit_is_too_large(api, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    client = Client()
    client.force_login(UserFactory(is_superuser=True))

    answer = client.post(TRIALS, {"code": "X" * 200, "title": "X"}, content_type="application/json")

    assert problem(answer) == (413, "too_large")


def test_the_same_key_and_body_again_is_answered_not_repeated(api):
    first = api.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k1")
    again = api.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again["Idempotency-Replayed"] == "true"
    assert Trial.objects.count() == 1


def test_a_replayed_refusal_is_a_problem_document(api):
    for _ in range(2):
        assert problem(api.post(TRIALS, {}, format="json", HTTP_IDEMPOTENCY_KEY="k1")) == (
            400,
            "invalid_input",
        )


def test_the_same_key_with_another_body_is_refused(api):
    api.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k1")

    other = api.post(TRIALS, {**BODY, "title": "Other"}, format="json", HTTP_IDEMPOTENCY_KEY="k1")

    assert problem(other) == (409, "conflict")


def test_a_key_in_flight_is_refused(api):
    user = api.handler._force_user
    IdempotencyRecord.objects.create(user=user, key="k1", path=TRIALS, request_digest=digest(BODY))

    assert problem(api.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k1")) == (409, "conflict")
    assert Trial.objects.count() == 0


def test_a_key_is_free_again_after_an_unexpected_failure(api, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(people, "create_trial", lambda **given: 1 / 0)
        assert api.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k1").status_code == 500

    assert api.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


def test_a_detail_has_a_tag_that_changes_with_it(api):
    trial = TrialFactory()
    address = f"{TRIALS}{trial.pk}/"
    tag = api.get(address)["ETag"]

    assert api.get(address, HTTP_IF_NONE_MATCH=tag).status_code == 304
    api.patch(address, {"title": "Other"}, format="json")
    assert api.get(address, HTTP_IF_NONE_MATCH=tag).status_code == 200


@pytest.mark.parametrize("condition", ["W/{}", '"other", {}', "*"])
def test_a_tag_is_known_in_every_form_of_if_none_match(api, condition):
    address = f"{TRIALS}{TrialFactory().pk}/"
    tag = api.get(address)["ETag"]

    assert api.get(address, headers={"If-None-Match": condition.format(tag)}).status_code == 304


def test_the_title_of_a_refusal_is_no_template(api):
    assert api.delete(TRIALS).json()["title"] == "Method Not Allowed"
    assert api.post(TRIALS, "x", content_type="text/plain").json()["title"] == "Unsupported Media Type"


def test_a_list_pages_through_every_row_once(api):
    trial = TrialFactory()
    made = {str(SiteFactory(trial=trial).pk) for _ in range(5)}
    address, seen = "/api/v1/sites/?limit=2", []
    while address:
        page = api.get(address).json()
        seen += [row["id"] for row in page["results"]]
        address = page["next"]

    assert len(seen) == 5
    assert set(seen) == made


@pytest.mark.parametrize(
    "query", ["colour=red", "ordering=colour", "limit=0&nosuch=1", "trial=abc", "cursor=abc"]
)
def test_what_a_list_does_not_know_is_refused(api, query):
    status, _ = problem(api.get(f"/api/v1/sites/?{query}"))

    assert status in {400, 404}


def test_a_rule_of_the_database_is_told_in_words(api):
    trial, site = TrialFactory(), SiteFactory()
    body = {"trial": str(trial.pk), "site": str(site.pk), "user": str(UserFactory().pk), "role": "sponsor"}

    assert problem(api.post("/api/v1/memberships/", body, format="json")) == (400, "invalid_input")


@pytest.mark.parametrize("limit", ["abc", "0", "-1", "1.5", "", "²"])
def test_a_limit_that_is_no_number_of_rows_is_refused(api, limit):
    answer = api.get(TRIALS, {"limit": limit})

    assert problem(answer) == (400, "invalid_input")
    assert answer.json()["errors"][0]["field"] == "limit"
