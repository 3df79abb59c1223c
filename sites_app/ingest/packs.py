"""Series packs: the instances that one upload adds to a series, one after the other in one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from hub.core.errors import NotFound
from hub.core.ids import uuid7
from hub.core.storage.blobs import root, sync_directory
from sites_app.ingest.spool import write_fully
from sites_app.models import Instance


def series_key(visit_id: UUID, series_instance_uid: str) -> str:
    """Return the name of a series' folder: made by us, so no UID is ever a path."""
    return hashlib.sha256(f"{visit_id}\0{series_instance_uid}".encode()).hexdigest()[:32]


def pack_path(trial_id: UUID, visit_id: UUID, series_instance_uid: str, segment_id: UUID) -> Path:
    folder = root("packs") / str(trial_id) / series_key(visit_id, series_instance_uid)
    return folder / f"{segment_id}.pack"


class PackWriter:
    """Appends instances to a new pack; `seal` makes it durable with one fsync."""

    def __init__(self, trial_id: UUID, visit_id: UUID, series_instance_uid: str) -> None:
        self.segment_id = uuid7()
        self.path = pack_path(trial_id, visit_id, series_instance_uid, self.segment_id)
        # Folders that are new are synced with the pack: the series', the trial's and the area.
        parents = (self.path.parent, self.path.parent.parent, self.path.parent.parent.parent)
        self._unsynced = [self.path.parent] + [parents[i + 1] for i in (0, 1) if not parents[i].exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.size = 0
        self._descriptor: int | None = None

    def append(self, content: bytes) -> int:
        """Write one instance and return its offset. Raises StorageFull where the disk is full."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        offset = self.size
        write_fully(self._descriptor, content)
        self.size += len(content)
        return offset

    def pause(self) -> None:
        """Close the file until the next instance: an upload may hold more series than files may be open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def seal(self) -> None:
        """Check the size, sync the file and its folders."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.fstat(self._descriptor).st_size != self.size:
                raise OSError(f"pack {self.segment_id} is shorter than what was written")
            os.fsync(self._descriptor)
        finally:
            self.pause()
        for folder in self._unsynced:
            sync_directory(folder)

    def discard(self) -> None:
        self.pause()
        self.path.unlink(missing_ok=True)


def read_instance(instance: Instance) -> bytes:
    """Return an instance's de-identified Part 10 file, checked against its digest.

    Raises NotFound where the pack is absent or damaged.
    """
    path = pack_path(
        instance.trial_id, instance.series.visit_id, instance.series.series_instance_uid, instance.segment_id
    )
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise NotFound("The stored images are not there. Tell the administrator.") from error
    try:
        content = os.pread(descriptor, instance.size, instance.offset)
    finally:
        os.close(descriptor)
    if hashlib.sha256(content).hexdigest() != instance.sha256:
        raise NotFound(f"The stored instance {instance.pk} is damaged. Tell the administrator.")
    return content


def pack_files() -> Iterator[Path]:
    """Yield every pack on disk."""
    yield from root("packs").glob("*/*/*.pack")
