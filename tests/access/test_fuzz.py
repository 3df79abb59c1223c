"""The API under generated requests, for three roles: nothing fails inside, answers are as documented."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import schemathesis
from django.db import transaction
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, seed, settings
from rest_framework.test import APIClient

from tests.access import matrix
from tests.access.world import World

EXAMPLES_PER_OPERATION = 2
ROLES = (matrix.ADMINISTRATOR, matrix.COORDINATOR, matrix.SPONSOR)


@pytest.mark.fuzz
def test_no_generated_request_fails_inside(world: World, subtests: pytest.Subtests) -> None:
    schema = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(public=True))
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 100
    for operation, role in itertools.product(operations, ROLES):
        with subtests.test(f"{operation.label} as {role}"):
            _fuzz(world, operation, role)


def _fuzz(world: World, operation: Any, role: str) -> None:
    @seed(1)
    @settings(
        max_examples=EXAMPLES_PER_OPERATION,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        with transaction.atomic():
            response = _send(world, case, role)
            transaction.set_rollback(True)
        assert response.status_code < 500, response.content[:500]
        if response.status_code >= 400:
            assert response["Content-Type"] == "application/problem+json"
            assert response.json()["status"] == response.status_code

    ask()


def _send(world: World, case: Any, role: str) -> Any:
    client = APIClient()
    client.force_authenticate(world.users[role])
    path = case.formatted_path
    headers = {
        f"HTTP_{name.upper().replace('-', '_')}": str(value) for name, value in (case.headers or {}).items()
    }
    query = {name: value for name, value in (case.query or {}).items() if value is not None}
    body = case.body if isinstance(case.body, (dict, list, str, int, float, bool)) else None
    return client.generic(
        case.method, path, _json(body), content_type="application/json", query_params=query, **headers
    )


def _json(body: Any) -> bytes:
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError):
        return b"null"
