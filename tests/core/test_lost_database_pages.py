"""A database that goes away before a view begins: who asks is not known, and is told to come back."""

from __future__ import annotations

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import Client

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
