"""A database that goes away while the answer of a request is kept under its Idempotency-Key."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import OperationalError
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.test import APIClient

from hub.core.api import views
from hub.core.api.idempotency_models import IdempotencyRecord
from sites_app.services import people
from tests.factories.sites_app import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(views.connection, "close", lambda: None)
    return IdempotencyRecord.objects.create(
        user=UserFactory(), key=uuid4().hex, path="/api/v1/submissions/", request_digest="0" * 64
    )


def answer(body, status):
    response = Response(body, status=status)
    response.accepted_renderer, response.accepted_media_type = JSONRenderer(), "application/json"
    response.renderer_context = {}
    return response


def failing(monkeypatch, times):
    original, left = views._settle, [times]

    def settle(record, response):
        if left[0]:
            left[0] -= 1
            raise OperationalError("server closed the connection unexpectedly")
        original(record, response)

    monkeypatch.setattr(views, "_settle", settle)


def test_a_refused_request_frees_its_key_over_a_new_connection(record, monkeypatch):
    failing(monkeypatch, 1)
    views._settle_safely(record, answer({"code": "unavailable"}, 503))
    assert not IdempotencyRecord.objects.filter(pk=record.pk).exists()


def test_an_answer_is_kept_over_a_new_connection(record, monkeypatch):
    failing(monkeypatch, 1)
    views._settle_safely(record, answer({"id": "1"}, 201))
    record.refresh_from_db()
    assert (record.status, record.body) == (201, {"id": "1"})


def test_a_database_that_stays_away_does_not_change_the_answer(record, monkeypatch):
    failing(monkeypatch, 2)
    views._settle_safely(record, answer({"id": "1"}, 201))
    record.refresh_from_db()
    assert record.status is None


@pytest.mark.parametrize(("times_away", "kept"), [(0, 0), (1, 0), (2, 1)])
def test_a_request_that_fails_unexpectedly_is_told_by_its_own_error(monkeypatch, times_away, kept):
    def fail(**_):
        raise RuntimeError("the first error")

    monkeypatch.setattr(views.connection, "close", lambda: None)
    monkeypatch.setattr(people, "create_trial", fail)
    failing(monkeypatch, times_away)
    client = APIClient()
    client.force_authenticate(UserFactory(is_superuser=True))

    with pytest.raises(RuntimeError, match="the first error"):
        client.post(
            "/api/v1/trials/", {"code": "NEW", "title": "New"}, format="json", HTTP_IDEMPOTENCY_KEY="k"
        )

    assert IdempotencyRecord.objects.count() == kept
