"""A database that goes away before a view begins, or in it: who asks is told to come back."""

from __future__ import annotations

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from sites_app.models import Role
from tests.factories.sites_app import MembershipFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(monkeypatch):
    def lost(*_):
        raise OperationalError("connection refused")

    monkeypatch.setattr(SessionStore, "load", lost)
    found = Client(raise_request_exception=False)
    found.cookies["sessionid"] = "a" * 32
    return found


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/nowhere/"])
def test_a_page_says_that_the_database_is_away(client, path):
    answer = client.get(path)

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert "The database cannot be reached now" in answer.content.decode()


def test_the_api_says_so_too(client):
    answer = client.get("/api/v1/trials/")

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert (answer["Content-Type"], answer.json()["code"]) == ("application/problem+json", "unavailable")


@pytest.mark.parametrize(("headers", "whole"), [({}, True), ({"hx-request": "true"}, False)])
def test_a_view_that_loses_the_database_says_when_to_come_back(monkeypatch, headers, whole):
    def lost(*_, **__):
        raise OperationalError("server closed the connection unexpectedly")

    membership = MembershipFactory(role=Role.SPONSOR)
    visitor = Client()
    visitor.force_login(membership.user)
    monkeypatch.setattr("qc_app.views.scanner.scanner_rows", lost)

    answer = visitor.get(reverse("trial-scanners", args=[membership.trial.code]), headers=headers)

    text = answer.content.decode()
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert "The database cannot be reached now" in text
    assert ("<html" in text) is whole


def test_a_refusal_that_waiting_does_not_mend_names_no_time(db):
    membership = MembershipFactory(role=Role.SPONSOR)
    visitor = Client()
    visitor.force_login(membership.user)

    answer = visitor.get(reverse("trial-scanners", args=["NOWHERE"]))

    assert (answer.status_code, "Retry-After" in answer) == (404, False)
