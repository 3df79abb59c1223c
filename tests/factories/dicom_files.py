"""Request bodies made of simulated DICOM files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence

from hub.demo.simulator import SimulatedFile

BOUNDARY = "hub-test-boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def zipped(files: Iterable[SimulatedFile], extra: dict[str, bytes] | None = None) -> bytes:
    """Return a stored zip of simulated files and of others by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            archive.writestr(file.name, file.data)
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def multipart(files: Sequence[tuple[str, bytes]], boundary: str = BOUNDARY) -> bytes:
    """Return a multipart/form-data body of (name, content)."""
    pieces = []
    for name, content in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        pieces += [head.encode(), content, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])
