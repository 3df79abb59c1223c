"""A series as a zip archive of its de-identified instances, stored and streamed."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.core.audit.services import record
from hub.core.errors import NotFound
from sites_app.ingest.packs import pack_path
from sites_app.models import Instance, Series

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Piece:
    path: Path
    offset: int
    size: int


def open_series_archive(*, actor: Any, series: Series) -> Iterator[bytes]:
    """Return the pieces of the archive; the download is recorded. Raises NotFound where a pack is gone."""
    instances = Instance.objects.filter(series=series).order_by("instance_number", "sop_instance_uid")
    pieces = [
        _Piece(
            pack_path(row.trial_id, series.visit_id, series.series_instance_uid, row.segment_id),
            row.offset,
            row.size,
        )
        for row in instances
    ]
    if any(not path.exists() for path in {piece.path for piece in pieces}):
        raise NotFound("The stored images of this series are not there. Tell the administrator.")
    record(actor=actor, action="series.downloaded", obj=series, new={"instances": len(pieces)})
    return _zipped(pieces)


def _zipped(pieces: list[_Piece]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for number, piece in enumerate(pieces, start=1):
            descriptor = os.open(piece.path, os.O_RDONLY)
            try:
                content = os.pread(descriptor, piece.size, piece.offset)
            finally:
                os.close(descriptor)
            archive.writestr(zipfile.ZipInfo(f"IM{number:05d}.dcm", _FIRST_DAY), content)
            yield sink.take()
    yield sink.take()


class _Sink:
    """What zipfile writes, until it is taken; it cannot seek, so sizes follow each member."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is kept back."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
