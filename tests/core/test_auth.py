"""Login by page and API: lockout, one-time codes, sessions, tokens, and what a refusal gives away."""

from __future__ import annotations

import time
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value
from django.core.cache import cache
from django.test import Client
from rest_framework.test import APIClient

from hub.core.audit.models import AuditEvent
from tests.factories.sites_app import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db
LOGIN = "/api/v1/auth/login/"
ME = "/api/v1/auth/me/"


@pytest.fixture(autouse=True)
def _no_counts() -> None:
    cache.clear()


def by_api(user: Any, **changes: str) -> Any:
    body = {"username": user.username, "password": PASSWORD, **changes}
    return APIClient().post(LOGIN, body, format="json")


def by_page(client: Client, user: Any, password: str = PASSWORD) -> Any:
    return client.post("/accounts/login/", {"login": user.username, "password": password})


def switch_on_codes(user: Any) -> str:
    secret: str = generate_totp_secret()
    TOTP.activate(user, secret)
    return secret


def code_of(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30)))


def wrong_code(secret: str) -> str:
    return f"{(int(code_of(secret)) + 500_000) % 1_000_000:06d}"


def test_a_token_is_given_for_the_right_password_and_says_who_it_belongs_to():
    user = UserFactory()
    token = by_api(user).json()["token"]
    client = APIClient(headers={"Authorization": f"Token {token}"})

    assert client.get(ME).json()["username"] == user.username
    assert client.post("/api/v1/auth/logout/").status_code == 204
    assert client.get(ME).status_code == 401


@pytest.mark.parametrize("door", ["page", "api"])
def test_five_wrong_passwords_lock_the_account_at_both_doors(door):
    user = UserFactory()
    for _ in range(5):
        by_api(user, password="wrong") if door == "api" else by_page(Client(), user, "wrong")

    refused = by_api(user)
    assert (refused.status_code, refused.json()["code"]) == (429, "locked_out")
    assert by_page(Client(), user).status_code == 429
    assert AuditEvent.objects.filter(action="login.failed", object_id=str(user.pk)).count() >= 4


def test_a_success_by_api_begins_the_count_of_failures_anew():
    user = UserFactory()
    for _ in range(4):
        by_api(user, password="wrong")
    assert by_api(user).status_code == 200
    for _ in range(4):
        by_api(user, password="wrong")

    assert by_api(user).status_code == 200


def test_with_one_time_codes_switched_on_the_api_needs_one():
    user = UserFactory()
    secret = switch_on_codes(user)

    missing, wrong = by_api(user), by_api(user, otp=wrong_code(secret))

    assert (missing.status_code, missing.json()["code"]) == (401, "otp_required")
    assert (wrong.status_code, wrong.json()["code"]) == (401, "otp_wrong")
    assert by_api(user, otp=code_of(secret)).status_code == 200


def test_wrong_one_time_codes_lock_the_account_too():
    user = UserFactory()
    secret = switch_on_codes(user)
    for _ in range(5):
        by_api(user, otp=wrong_code(secret))

    assert by_api(user, otp=code_of(secret)).status_code == 429


def test_with_one_time_codes_switched_on_the_page_needs_one():
    user, client = UserFactory(), Client()
    secret = switch_on_codes(user)

    assert by_page(client, user).url == "/accounts/2fa/authenticate/"
    assert "_auth_user_id" not in client.session
    assert client.post("/accounts/2fa/authenticate/", {"code": wrong_code(secret)}).status_code == 200
    assert client.post("/accounts/2fa/authenticate/", {"code": code_of(secret)}).status_code == 302
    assert client.session["_auth_user_id"] == str(user.pk)


def test_one_time_codes_cannot_be_guessed_on_the_page():
    user, client = UserFactory(), Client()
    secret = switch_on_codes(user)
    by_page(client, user)
    for _ in range(5):
        client.post("/accounts/2fa/authenticate/", {"code": wrong_code(secret)})

    client.post("/accounts/2fa/authenticate/", {"code": code_of(secret)})

    assert "_auth_user_id" not in client.session


def test_an_inactive_user_is_refused_with_password_and_with_token():
    user = UserFactory()
    token = by_api(user).json()["token"]
    user.is_active = False
    user.save()

    assert by_api(user).status_code == 401
    assert "_auth_user_id" not in _session_after(user)
    assert APIClient(headers={"Authorization": f"Token {token}"}).get(ME).status_code == 401


def _session_after(user: Any) -> Any:
    client = Client()
    by_page(client, user)
    return client.session


def test_a_refusal_does_not_say_whether_the_user_exists():
    known, inactive = UserFactory(), UserFactory(is_active=False)
    answers = [
        by_api(known, password="wrong").json(),
        by_api(known, username="nobody", password="wrong").json(),
        by_api(inactive, password="wrong").json(),
    ]

    assert answers[0] == answers[1] == answers[2]


def test_the_session_id_changes_at_login():
    user, client = UserFactory(), Client()
    client.get("/accounts/login/")
    session = client.session
    session["before"] = 1
    session.save()
    before = client.session.session_key

    by_page(client, user)

    assert client.session.session_key != before


def test_an_idle_session_ends(settings):
    user, client = UserFactory(), Client()
    client.force_login(user)
    client.get("/account/")
    session = client.session
    session["last_seen"] = int(time.time()) - settings.HUB_IDLE_TIMEOUT_S - 1
    session.save()

    assert client.get("/account/").status_code == 302


def test_writes_of_a_session_need_the_csrf_token():
    user = UserFactory(is_superuser=True)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)

    refused = client.post("/api/v1/trials/", {"code": "X", "title": "X"}, content_type="application/json")

    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")


def test_logging_out_by_api_ends_the_session():
    client = Client()
    client.force_login(UserFactory())

    assert client.post("/api/v1/auth/logout/").status_code == 204
    assert client.get(ME).status_code == 401


def test_changing_the_password_ends_every_token():
    user, client = UserFactory(), Client()
    token = by_api(user).json()["token"]
    client.force_login(user)
    new = "quite another horse battery"
    body = {"oldpassword": PASSWORD, "password1": new, "password2": new}

    assert client.post("/accounts/password/change/", body).status_code == 302
    assert APIClient(headers={"Authorization": f"Token {token}"}).get(ME).status_code == 401
    assert AuditEvent.objects.filter(action="user.password_changed", object_id=str(user.pk)).exists()


@pytest.mark.parametrize("path", ["signup/", "password/reset/", "email/", "confirm-email/"])
def test_what_needs_mail_is_not_offered(path):
    assert Client().get(f"/accounts/{path}").status_code == 404


@pytest.mark.parametrize(
    "path", ["password/change/", "2fa/", "2fa/totp/activate/", "reauthenticate/", "logout/"]
)
def test_account_pages_have_the_frame_of_the_hub(path):
    client, user = Client(), UserFactory()
    by_page(client, user)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})

    page = client.get(f"/accounts/{path}")

    assert page.status_code == 200
    assert b'class="frame"' in page.content
