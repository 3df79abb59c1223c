"""A computation in a process of its own, which shares nothing with the worker but the files it is given."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from django.conf import settings

from harmonization_app.offline.computation import (
    RESULT,
    Computation,
    Outcome,
    process_environment,
    read_outcome,
    write_computation,
)
from hub.core.errors import Conflict
from hub.core.storage.blobs import require_free_space, root

AREA = "computations"
_LOOK_S = 2.0


class ComputationFailed(Conflict):
    code = "computation_failed"
    title = "The repeated computation did not end well"


def compute_in_fresh_process(computation: Computation, waiting: Callable[[], None]) -> Outcome:
    """Compute in a new process with one BLAS thread; `waiting` is called every two seconds and may raise.

    Raises ComputationFailed with the words of the process; the process is ended whatever is raised.
    """
    require_free_space()
    with tempfile.TemporaryDirectory(dir=root(AREA)) as name:
        folder = Path(name)
        write_computation(folder, computation)
        with (folder / "errors.txt").open("w+b") as errors:
            _run([sys.executable, "-m", "harmonization_app.offline.computation", name], errors, waiting)
        return read_outcome(folder / RESULT, computation.dataset)


def _run(command: list[str], errors: IO[bytes], waiting: Callable[[], None]) -> None:
    process = subprocess.Popen(
        command,
        cwd=settings.BASE_DIR,
        env=process_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )
    try:
        while True:
            try:
                status = process.wait(_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                waiting()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if status != 0:
        errors.seek(0)
        words = errors.read()[-1500:].decode(errors="replace").strip()
        raise ComputationFailed(
            f"The process ended with status {status}. {words.splitlines()[-1] if words else ''}"
        )
