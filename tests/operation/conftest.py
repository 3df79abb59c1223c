"""Short folders and short-lived processes for the launcher's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because a unix socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hub-t-", dir="/tmp") as name:
        yield Path(name)
