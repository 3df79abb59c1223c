"""Tables of measurements as uploads, for the import page and the API: a CSV as bytes, a matrix as a file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings


def read_table(upload: Any) -> bytes:
    """Return the upload's content, one byte more than allowed at most: the service refuses that."""
    return bytes(upload.read(settings.HUB_TABLE_LIMIT_BYTES + 1))


@contextmanager
def matrix_file(upload: Any) -> Iterator[Path]:
    """Yield the path of an uploaded matrix: where the upload lies on disk already, else of a copy of it."""
    path = getattr(upload, "temporary_file_path", None)
    if path is not None:
        yield Path(path())
        return
    with tempfile.NamedTemporaryFile(suffix=".npy") as copy:
        shutil.copyfileobj(upload, copy)
        copy.flush()
        yield Path(copy.name)
