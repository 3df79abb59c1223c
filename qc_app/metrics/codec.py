"""Decode compressed instances in a child process that can be killed: a bad file costs one series only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.header import InstanceHeader
from qc_app.metrics.part10 import UNDEFINED_LENGTH

WALL_SECONDS = 20
CPU_SECONDS = 20
BATCH_BYTES = 128_000_000
SUPPORTED = frozenset(
    f"1.2.840.10008.1.2.{suffix}"
    for suffix in (
        "5", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.201", "4.202", "4.203",
    )
)  # fmt: skip
_CHILD = Path(__file__).with_name("decode.py")


def decode_instances(headers: Sequence[InstanceHeader]) -> Iterator[NDArray[Any]]:
    """Yield the decoded frames of each instance as an unsigned array (frames, rows, columns), in order.

    The instances are decoded in batches of at most 128 MB, one child process each, within 20 s a batch.

    Raises PixelsUnavailable (unsupported_transfer_syntax, too_large, undecodable, decode_timeout).
    """
    for header in headers:
        syntax = header.layout.transfer_syntax
        if syntax not in SUPPORTED:
            raise PixelsUnavailable(
                "unsupported_transfer_syntax",
                f"Transfer syntax {syntax or '(none)'} cannot be decoded here. Export the series uncompressed.",
            )
        if header.layout.floating:
            raise PixelsUnavailable(
                "unsupported_pixels", "Compressed floating-point pixels are not supported."
            )
    for batch in _batches(headers):
        yield from _decode_batch(batch)


def _batches(headers: Sequence[InstanceHeader]) -> Iterator[list[InstanceHeader]]:
    batch: list[InstanceHeader] = []
    size = 0
    for header in headers:
        if batch and size + header.layout.total_bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(header)
        size += header.layout.total_bytes
    if batch:
        yield batch


def _decode_batch(batch: Sequence[InstanceHeader]) -> Iterator[NDArray[Any]]:
    expected = sum(header.layout.total_bytes for header in batch)
    values = [_encapsulated_value(header) for header in batch]
    request = {
        "cpu_seconds": CPU_SECONDS,
        "output_bytes": expected,
        "instances": [_describe(header, len(value)) for header, value in zip(batch, values, strict=True)],
    }
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as target,
        tempfile.TemporaryFile() as problems,
    ):
        for value in values:
            source.write(value)
        source.seek(0)
        _run_child(request, source, target, problems)
        target.seek(0)
        decoded = target.read(expected + 1)
    if len(decoded) != expected:
        raise PixelsUnavailable(
            "undecodable", "The decoder returned another number of pixels than the header says."
        )
    offset = 0
    for header in batch:
        layout = header.layout
        dtype = np.dtype(f"<u{layout.bits_allocated // 8}")
        count = layout.frames * layout.rows * layout.columns
        frames = np.frombuffer(decoded, dtype, count, offset)
        yield frames.reshape(layout.frames, layout.rows, layout.columns)
        offset += layout.total_bytes


def _encapsulated_value(header: InstanceHeader) -> memoryview:
    opened = header.opened
    if opened.declared_length == UNDEFINED_LENGTH:
        return opened.pixel_bytes
    raise PixelsUnavailable(
        "undecodable", "Compressed pixel data must be encapsulated, with undefined length."
    )


def _describe(header: InstanceHeader, length: int) -> dict[str, Any]:
    layout = header.layout
    return {
        "length": length,
        "transfer_syntax": layout.transfer_syntax,
        "frames": layout.frames,
        "rows": layout.rows,
        "columns": layout.columns,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "signed": layout.signed,
        "photometric": layout.photometric,
    }


def _child_environment() -> dict[str, str]:
    """Return the few variables that the decoder needs, so that it never sees the hub's secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _run_child(request: dict[str, Any], source: IO[bytes], target: IO[bytes], problems: IO[bytes]) -> None:
    """Run the decoder to its end, or kill its whole process group when the time is up.

    A plain subprocess, because Celery's daemonic workers may not start multiprocessing children.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", str(_CHILD), json.dumps(request)],
        stdin=source,
        stdout=target,
        stderr=problems,
        start_new_session=True,
        env=_child_environment(),
    )
    try:
        status = child.wait(WALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise PixelsUnavailable(
            "decode_timeout",
            f"Decoding took longer than {WALL_SECONDS} s and was stopped. Export it uncompressed.",
        ) from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if status != 0:
        problems.seek(0)
        lines = problems.read(4096).decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1][:300] if lines and status > 0 else f"the decoder was stopped by signal {-status}"
        raise PixelsUnavailable("undecodable", f"The compressed pixels cannot be decoded: {reason}")
