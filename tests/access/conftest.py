"""The world of these tests. Each request on it happens inside a savepoint that is rolled back."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache

from hub.core.jobs import services as job_services
from tests.access.world import World, make_world


@pytest.fixture
def world(db: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Making it takes seconds: a test of many requests makes one, and reports each request as a subtest."""
    monkeypatch.setattr(job_services, "_publish", lambda row: None)
    cache.clear()
    built: World = make_world()
    return built
