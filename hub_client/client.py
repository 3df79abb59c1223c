"""The hub's public API; every path of the API that the client uses is named here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hub_client.archives import StoredZip
from hub_client.documents import (
    ChecklistItem,
    DataLock,
    Document,
    Export,
    Series,
    SeriesVerdicts,
    Submission,
    SubmissionFile,
)
from hub_client.harmonization_api import HarmonizationApi

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class HubClient(HarmonizationApi):
    """A person's or a program's way into a hub.

    Every method raises HubRequestFailed where the hub refuses and HubUnreachable where no answer comes.
    """

    def __init__(self, base_url: str, token: str = "", timeout_s: float = 120.0) -> None:
        super().__init__(base_url, token, timeout_s)
        self._ids: dict[tuple[str, ...], str] = {}

    # Lists

    def find_id(self, path: str, **query: str) -> str:
        """Return the id of the only row that a query finds; looked up once.

        Raises LookupError where there is none or more than one.
        """
        memory = (path, *(f"{key}={value}" for key, value in sorted(query.items())))
        if memory not in self._ids:
            rows = [
                row
                for row in self.every(path, **query)
                if all(str(row.get(key, value)) == value for key, value in query.items())
            ]
            if len(rows) != 1:
                raise LookupError(f"{path} with {query} has {len(rows)} rows; exactly one was expected.")
            self._ids[memory] = rows[0]["id"]
        return self._ids[memory]

    def trial_id(self, code: str) -> str:
        """Return the id of a trial named by its code or by its id. Raises LookupError where there is none."""
        return code if _UUID.fullmatch(code) else self.find_id("trials/", code=code)

    # People

    def login(self, username: str, password: str, otp: str = "") -> str:
        """Log in, use the token from now on, and return it."""
        document = {"username": username, "password": password, **({"otp": otp} if otp else {})}
        self.token = self.post("auth/login/", document)["token"]
        return self.token

    # Submissions

    def submissions(self, trial: str, **query: str) -> Iterator[Submission]:
        return cast(Iterator[Submission], self.every("submissions/", trial=trial, **query))

    def open_submission(
        self,
        *,
        trial: str,
        site: str,
        subject: str,
        visit: str,
        form: Mapping[str, Any],
        key: str,
        manifest: Sequence[Mapping[str, Any]] = (),
    ) -> Submission:
        """Open a submission; the same idempotency key gives the same submission. Places are ids or codes."""
        document: Document = {
            "trial": trial,
            "site": site,
            "subject": subject,
            "visit": visit,
            "form": dict(form),
        }
        if manifest:
            document["manifest"] = [dict(entry) for entry in manifest]
        return self.post("submissions/", document, key=key)

    def send_archive(self, submission: str, archive: StoredZip) -> Document:
        """Send files as one stored zip archive; the hub keeps the same archive once, so that it may be repeated."""
        path = f"submissions/{submission}/files/"
        return self.request("POST", path, body=archive, content_type="application/zip", repeatable=True)

    def complete(self, submission: str) -> Document:
        return self.post(f"submissions/{submission}/complete/")

    def submission(self, submission: str) -> Submission:
        return self.get(f"submissions/{submission}/")

    def submission_files(self, submission: str, outcome: str = "") -> Iterator[SubmissionFile]:
        query = {"outcome": outcome} if outcome else {}
        return cast(Iterator[SubmissionFile], self.every(f"submissions/{submission}/files/", **query))

    def receipt(self, submission: str) -> Document:
        return self.get(f"submissions/{submission}/receipt/")

    def series(self, **query: Any) -> Iterator[Series]:
        return cast(Iterator[Series], self.every("series/", **query))

    def series_verdicts(self, series: str) -> SeriesVerdicts:
        return self.get(f"series/{series}/verdicts/")

    def deviations(self, trial: str, **query: str) -> Iterator[Document]:
        return self.every("deviations/", trial=trial, **query)

    # Locks and exports

    def versions(self, kind: str, trial: str) -> list[Document]:
        """Return the versions of a kind: protocols, qc-profiles or harmonization-plans."""
        return list(self.every(f"{kind}/", trial=trial))

    def lock(self, kind: str, identity: str, *, password: str, meaning: str, otp: str = "") -> Document:
        """Sign and lock a version or, as data-locks, the data of a trial."""
        document = {"password": password, "meaning": meaning, **({"otp": otp} if otp else {})}
        return self.post(f"{kind}/{identity}/lock/", document)

    def data_locks(self, trial: str) -> list[DataLock]:
        return cast(list[DataLock], list(self.every("data-locks/", trial=trial)))

    def open_data_lock(self, trial: str) -> DataLock:
        return self.post("data-locks/", {"trial": trial})

    def checklist(self, data_lock: str) -> list[ChecklistItem]:
        return self.get(f"data-locks/{data_lock}/checklist/")

    def freeze(self, data_lock: str) -> DataLock:
        return self.post(f"data-locks/{data_lock}/freeze/")

    def start_export(self, trial: str, *, include_images: bool = False, key: str = "") -> Export:
        return self.post("exports/", {"trial": trial, "include_images": include_images}, key=key)

    def export(self, identity: str) -> Export:
        return self.get(f"exports/{identity}/")

    def download_export(self, identity: str, target: Path) -> str:
        """Stream a finished package into a file and return its SHA-256."""
        return self.download(f"exports/{identity}/package/", target)
