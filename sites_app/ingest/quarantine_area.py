"""Files that were received but not accepted, kept as they came, apart from everything else."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

from hub.core.ids import uuid7
from hub.core.storage.blobs import root, sync_directory
from sites_app.ingest.spool import write_fully


def quarantine_path(quarantined_id: UUID) -> Path:
    return root("quarantine") / str(quarantined_id)


class QuarantineArea:
    """New files of the quarantine; durable after `seal`."""

    def __init__(self) -> None:
        self.ids: list[UUID] = []

    def keep(self, content: bytes) -> UUID:
        """Store one file under a new id. Raises StorageFull where the disk is full."""
        quarantined_id = uuid7()
        self.ids.append(quarantined_id)
        descriptor = os.open(quarantine_path(quarantined_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_fully(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return quarantined_id

    def adopt(self, path: Path) -> UUID:
        """Keep the file at `path` under a new id; the caller removes the original afterwards."""
        quarantined_id = uuid7()
        self.ids.append(quarantined_id)
        os.link(path, quarantine_path(quarantined_id))
        self.seal()
        return quarantined_id

    def seal(self) -> None:
        if self.ids:
            sync_directory(root("quarantine"))

    def discard(self) -> None:
        for quarantined_id in self.ids:
            quarantine_path(quarantined_id).unlink(missing_ok=True)
