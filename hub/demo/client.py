"""The public API as the demonstration uses it: the hub's own client, with files from memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import hub_client
from hub.demo.simulator import SimulatedFile
from hub_client import HubRequestFailed
from hub_client.archives import Member
from hub_client.documents import FINAL_RUN_STATES, FINAL_SERIES_STATES, FINAL_STATES, Document

__all__ = [
    "FINAL_RUN_STATES",
    "FINAL_SERIES_STATES",
    "FINAL_STATES",
    "Document",
    "HubClient",
    "HubRequestFailed",
    "StoredZip",
]


class StoredZip(hub_client.StoredZip):
    """A stored zip archive of simulated files."""

    def __init__(self, files: Sequence[SimulatedFile]) -> None:
        super().__init__([_member(file) for file in files])


def _member(file: SimulatedFile) -> Member:
    return Member(file.name, len(file.data), zlib.crc32(file.data), lambda: [file.data])


class HubClient(hub_client.HubClient):
    """The client with what only the demonstration asks for."""

    def upload_zip(self, submission: str, files: Sequence[SimulatedFile]) -> Any:
        """Send files as one stored zip archive."""
        return self.send_archive(submission, StoredZip(files))

    def verdicts(self, series: str) -> list[Document]:
        return _rows(self.get(f"series/{series}/verdicts/"))

    def metrics(self, series: str) -> list[Document]:
        return _rows(self.get(f"series/{series}/metrics/"))

    def change_events(self, trial: str) -> Iterator[Document]:
        return self.every("change-events/", trial=trial)

    def drift_alerts(self, trial: str) -> Iterator[Document]:
        return self.every("drift-alerts/", trial=trial)


def _rows(answer: Any) -> list[Document]:
    return list(answer["results"] if isinstance(answer, dict) and "results" in answer else answer)
