"""Every route by every role: the status, what changed, and whose rows were shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import URLPattern, get_resolver
from rest_framework.test import APIClient

from hub.core.audit.models import AuditEvent
from tests.access.matrix import ANONYMOUS, ROLES, RULES, SUPERUSER, Rule
from tests.access.requests import SEND_FILE, body_of, path_arguments
from tests.access.world import World

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What a refused request may leave behind: the record of the refusal, and the session's own row.
REFUSALS = {"access.refused", "signature.refused", "login.failed"}
TABLES_OF_REFUSALS = {"core_audit_event", "core_audit_head", "django_session"}
_BY_ROUTE: dict[str, list[Rule]] = {}
for _rule in RULES:
    _BY_ROUTE.setdefault(_rule.route, []).append(_rule)


def _routes(patterns: Any = None, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, pattern
        else:
            yield from _routes(pattern.url_patterns, route)


def _offered(pattern: URLPattern) -> set[str]:
    """Return the methods that an API view offers."""
    callback: Any = pattern.callback
    actions = getattr(callback, "actions", None)
    names = actions if actions is not None else vars_of(callback.cls)
    allowed = {name.upper() for name in callback.cls.http_method_names}
    return {name.upper() for name in names} & allowed & set(METHODS)


def vars_of(view: Any) -> list[str]:
    return [name for name in view.http_method_names if hasattr(view, name)]


ROUTES = dict(_routes())
API_ROUTES = {route: pattern for route, pattern in ROUTES.items() if route.startswith("api/")}


def test_every_route_is_in_the_matrix() -> None:
    missing = sorted(set(ROUTES) - set(_BY_ROUTE))

    assert not missing, f"tests/access/matrix.py: say who may use {missing}"


def test_the_matrix_names_only_routes_that_exist() -> None:
    assert sorted(set(_BY_ROUTE) - set(ROUTES)) == []


@pytest.mark.parametrize("route", sorted(API_ROUTES))
def test_every_method_of_an_api_route_is_in_the_matrix(route: str) -> None:
    assert _offered(API_ROUTES[route]) == {rule.method for rule in _BY_ROUTE.get(route, [])}


def test_each_role_is_answered_as_the_matrix_says(world: World, subtests: pytest.Subtests) -> None:
    for rule in RULES:
        with subtests.test(rule.key):
            _check(world, rule)


def _check(world: World, rule: Rule) -> None:
    wrong = []
    for role in ROLES:
        answer, expected = _ask(world, rule, role), rule.expected(role)
        if answer.status != expected:
            wrong.append(f"{role}: {answer.status} instead of {expected}: {answer.text[:200]}")
        if answer.changed and role not in rule.may:
            wrong.append(f"{role}: refused, but it changed {answer.changed}")
        if answer.shown:
            wrong.append(f"{role}: was shown {len(answer.shown)} ids out of scope, such as {answer.shown[0]}")
    assert not wrong, "\n".join([rule.key, *wrong])


def test_other_methods_of_the_api_are_refused(world: World, subtests: pytest.Subtests) -> None:
    for route in sorted(API_ROUTES):
        rules = _BY_ROUTE[route]
        for method in sorted(set(METHODS) - {rule.method for rule in rules}):
            with subtests.test(f"{method} {route}"):
                assert _ask(world, rules[0], SUPERUSER, method=method).status == 405


class Answer:
    """What came back from one request, and what it did to the database before it was rolled back."""

    def __init__(
        self,
        response: Any,
        changed: dict[str, int],
        actions: set[str],
        hidden: frozenset[str],
        sent: set[str],
    ) -> None:
        self.status = response.status_code
        content = b"".join(response.streaming_content) if response.streaming else response.content
        self.text = content.decode(errors="replace")
        if changed.keys() <= TABLES_OF_REFUSALS and actions <= REFUSALS:
            changed = {}
        self.changed = {**changed, **dict.fromkeys(actions - REFUSALS, 1)} if changed else {}
        self.shown = sorted(set(_UUID.findall(self.text)) & (hidden - sent))


_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _ask(world: World, rule: Rule, role: str, method: str = "") -> Answer:
    with transaction.atomic():
        client = _client(world, rule, role)
        before, events = _writes(), AuditEvent.objects.order_by("-pk").values_list("pk", flat=True)[0]
        response = _send(world, rule, client, method or rule.method)
        changed = dict(_writes() - before)
        actions = set(AuditEvent.objects.filter(pk__gt=events).values_list("action", flat=True))
        answer = Answer(response, changed, actions, world.hidden_from(role), _sent_ids(world, rule))
        transaction.set_rollback(True)
    return answer


def _sent_ids(world: World, rule: Rule) -> set[str]:
    """Return the ids that the request itself names: an answer may repeat them."""
    return set(_UUID.findall(f"{path_arguments(world, rule)} {body_of(world, rule)}"))


def _client(world: World, rule: Rule, role: str) -> Client:
    if rule.route.startswith("api/"):
        client = APIClient()
        client.force_authenticate(world.users.get(role))
        return client
    client = Client()
    if role != ANONYMOUS:
        client.force_login(world.users[role])
    return client


def _send(world: World, rule: Rule, client: Any, method: str) -> Any:
    path = "/" + rule.route
    for part, value in path_arguments(world, rule).items():
        path = path.replace(part, str(value))
    body = body_of(world, rule)
    if method == "GET":
        return client.get(path)
    if rule.key == SEND_FILE:
        return client.generic(method, path, body, content_type="application/dicom")
    if isinstance(client, APIClient):
        form = "multipart" if isinstance(body, dict) and "file" in body else "json"
        return getattr(client, method.lower())(path, body, format=form)
    return client.generic(method, path, body) if method != "POST" else client.post(path, body)


def _writes() -> Counter[str]:
    """Count the rows that this transaction has inserted, updated or deleted so far, by table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables"
            " WHERE n_tup_ins + n_tup_upd + n_tup_del > 0"
        )
        return Counter(dict(cursor.fetchall()))
