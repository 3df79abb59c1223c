"""Request bodies on disk: durable before they are answered, removed once they are processed."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from uuid import UUID

from hub.core.errors import StorageFull
from hub.core.storage.blobs import root, sync_directory

CHUNK_BYTES = 1024**2
_FULL = "The hub's disk is full. Nothing of this upload was stored; tell the administrator and send it again."


def spool_path(upload_id: UUID) -> Path:
    return root("spool") / str(upload_id)


class SpoolFile:
    """A new file of the spool, written piece by piece and hashed on the way.

    Leaving the context without `commit` removes the file. Raises StorageFull where the disk is full.
    """

    def __init__(self, upload_id: UUID) -> None:
        self.path = spool_path(upload_id)
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._committed = False

    def __enter__(self) -> SpoolFile:
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise _storage_error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if not self._committed:
            self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def write(self, piece: bytes | memoryview) -> None:
        """Append all of `piece`; a short write is continued, never overlooked."""
        self._sha256.update(piece)
        write_fully(self._descriptor, piece)
        self.size += len(piece)

    def commit(self) -> None:
        """Make the file durable: its size is checked, then it and its folder are synced."""
        try:
            written = os.fstat(self._descriptor).st_size
            if written != self.size:
                raise StorageFull(f"Only {written:,} of {self.size:,} bytes could be stored. Send it again.")
            os.fsync(self._descriptor)
            sync_directory(self.path.parent)
        except OSError as error:
            raise _storage_error(error) from error
        self._committed = True


def write_fully(descriptor: int, piece: bytes | memoryview) -> None:
    """Write every byte of `piece`. Raises StorageFull where the disk takes no more."""
    view = memoryview(piece)
    while view:
        try:
            written = os.write(descriptor, view)
        except OSError as error:
            raise _storage_error(error) from error
        if written <= 0:
            raise StorageFull(_FULL)
        view = view[written:]


def remove_spool_file(upload_id: UUID) -> None:
    spool_path(upload_id).unlink(missing_ok=True)


def _storage_error(error: OSError) -> Exception:
    return StorageFull(_FULL) if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else error
