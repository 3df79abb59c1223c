"""A folder that another program fills: what has come to rest is sent, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hub_client.folder import files_in

POLL_S = 5.0
SETTLED_S = 15.0
"""A scanner's export writes a series file by file: nothing is sent before all has been still for so long."""

Stamp = tuple[int, int]


class Watch:
    """Finds files that are new or changed since they were sent and that nobody is writing any more."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._seen: dict[Path, Stamp] = {}
        self._sent: dict[Path, Stamp] = {}

    def ready(self) -> list[Path]:
        """Return what to send now; empty while a new file is younger than SETTLED_S."""
        self._seen = {path: stamp for path in files_in(self._folder) if (stamp := _stamp(path)) is not None}
        new = [path for path, stamp in self._seen.items() if self._sent.get(path) != stamp]
        newest = max((self._seen[path][1] for path in new), default=0) / 1e9
        return new if new and self._clock() - newest >= SETTLED_S else []

    def sent(self, paths: Iterable[Path]) -> None:
        """Remember that these files, as `ready` saw them, are at the hub."""
        self._sent |= {path: self._seen[path] for path in paths}

    def batches(self) -> Iterator[list[Path]]:
        """Yield what to send, for ever."""
        while True:
            if found := self.ready():
                yield found
            time.sleep(POLL_S)


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
