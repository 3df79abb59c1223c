"""Fixtures shared by every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_storage(settings, tmp_path):  # type: ignore[no-untyped-def]
    """Each test has its own storage and anchor file."""
    settings.HUB_STORAGE_ROOT = tmp_path / "data"
    settings.HUB_ANCHOR_FILE = tmp_path / "anchor" / "anchors.jsonl"


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of reference data, or a skip with the reason."""
    folder = os.environ.get("HUB_REFERENCE_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HUB_REFERENCE_DATA does not name a folder of reference data")
    return Path(folder)
