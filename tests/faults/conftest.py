"""One private hub for all fault tests, and what they upload."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.load import Load
from tests.faults.private_hub import PrivateHub, running_hub


@pytest.fixture(scope="session")
def hub() -> Iterator[PrivateHub]:
    """A hub in a folder with a short path, because a unix socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hub-f-", dir="/tmp") as name:
        with running_hub(Path(name)) as running:
            yield running


@pytest.fixture(scope="session")
def load(hub: PrivateHub) -> Load:
    """A trial with one site and one visit, to which series are sent."""
    return Load(hub)
