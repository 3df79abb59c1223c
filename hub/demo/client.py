"""The hub's public API over HTTP, by the standard library alone; every path of the API is named here."""

from __future__ import annotations

import http.client
import json
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from hub.demo.simulator import SimulatedFile

PIECE_BYTES = 1 << 20
FINAL_STATES = frozenset({"accepted", "accepted_with_rejections", "quarantined", "failed", "cancelled"})
FINAL_SERIES_STATES = frozenset({"checked", "failed"})
FINAL_RUN_STATES = frozenset({"succeeded", "failed", "refused", "cancelled"})
RETRIED_STATUSES = frozenset({429, 502, 503})

Document = dict[str, Any]


class HubRequestFailed(Exception):
    """The hub answered with an error; the message names the request and the hub's own words."""

    def __init__(self, method: str, path: str, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))
        detail = problem.get("detail") or problem.get("title") or "no reason given"
        errors = problem.get("errors") or []
        listed = "".join(f"\n  {item.get('field', '')}: {item.get('message', '')}" for item in errors[:10])
        super().__init__(f"{method} {path} answered {status}: {detail}{listed}")


class StoredZip:
    """A zip archive of uncompressed members (APPNOTE 4.3) whose length is known before it is written."""

    def __init__(self, files: Sequence[SimulatedFile]) -> None:
        self._files = [(file.name.encode(), file.data) for file in files]
        names = sum(len(name) for name, _ in self._files)
        data = sum(len(content) for _, content in self._files)
        self.length = len(self._files) * (30 + 46) + 2 * names + data + 22

    def __iter__(self) -> Iterator[bytes]:
        directory: list[bytes] = []
        offset = 0
        for name, content in self._files:
            common = struct.pack(
                "<HHHHHIIIHH",
                20,
                0x800,
                0,
                0,
                0x21,
                zlib.crc32(content),
                len(content),
                len(content),
                len(name),
                0,
            )
            yield b"PK\3\4" + common + name
            yield content
            place = struct.pack("<HHHII", 0, 0, 0, 0, offset)
            directory.append(b"PK\1\2" + struct.pack("<H", 20) + common + place + name)
            offset += 30 + len(name) + len(content)
        listing = b"".join(directory)
        count = len(self._files)
        end = struct.pack("<HHHHIIH", 0, 0, count, count, len(listing), offset, 0)
        yield listing + b"PK\5\6" + end


class HubClient:
    """One kept-alive connection to a hub; not to be shared between threads."""

    def __init__(self, base_url: str, token: str = "", timeout_s: float = 120.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is no address of a hub; write it as http://host:port.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._prefix = parts.path.rstrip("/") + "/api/v1/"
        self._base_url = base_url
        self._token = token
        self._ids: dict[tuple[str, ...], str] = {}

    def close(self) -> None:
        self._connection.close()

    # Transport

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | StoredZip | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request and return the decoded JSON, the bytes of any other content, or None.

        Raises HubRequestFailed for an error status, ConnectionError where the hub cannot be reached.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Token {self._token}"
        if body is not None:
            sent["Content-Type"] = content_type
            sent["Content-Length"] = str(body.length if isinstance(body, StoredZip) else len(body))
        for attempt in range(4):
            status, answered, content = self._exchange(method, self._prefix + path, body, sent)
            if status not in RETRIED_STATUSES or attempt == 3:
                break
            time.sleep(0.5 * 2**attempt)
        value = json.loads(content) if content and "json" in answered else content or None
        if status >= 400:
            problem = value if isinstance(value, dict) else {"detail": str(content[:200], "utf-8", "replace")}
            raise HubRequestFailed(method, path, status, problem)
        return value

    def _exchange(
        self, method: str, target: str, body: bytes | StoredZip | None, headers: Mapping[str, str]
    ) -> tuple[int, str, bytes]:
        for attempt in (1, 2):
            try:
                self._connection.request(method, target, body=body, headers=dict(headers))
                response = self._connection.getresponse()
                return response.status, response.headers.get("Content-Type", ""), response.read()
            except (http.client.RemoteDisconnected, http.client.CannotSendRequest, BrokenPipeError) as error:
                # A server may close a kept-alive connection between two requests.
                self._connection.close()
                if attempt == 2:
                    raise ConnectionError(f"{self._base_url} closed the connection: {error}") from error
        raise AssertionError("unreachable")

    def get(self, path: str, **query: Any) -> Any:
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, document: Mapping[str, Any] | None = None, *, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self.request("POST", path, body=json.dumps(document or {}).encode(), headers=headers)

    def every(self, path: str, **query: Any) -> Iterator[Document]:
        """Yield the rows of all pages of a list."""
        answer = self.get(path, limit=100, **query)
        while True:
            yield from answer["results"]
            following = answer.get("next")
            if not following:
                return
            parts = urlsplit(following)
            answer = self.request("GET", f"{path}?{parts.query}")

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

    # People

    def login(self, username: str, password: str) -> None:
        """Log in and use the token from now on."""
        self._token = self.post("auth/login/", {"username": username, "password": password})["token"]

    # Submissions

    def trial_id(self, code: str) -> str:
        return self.find_id("trials/", code=code)

    def submissions(self, trial: str) -> Iterator[Document]:
        return self.every("submissions/", trial=trial)

    def open_submission(
        self, *, trial: str, site: str, subject: str, visit: str, form: Mapping[str, Any], key: str
    ) -> Document:
        """Open a submission; the same idempotency key gives the same submission."""
        document = {"trial": trial, "site": site, "subject": subject, "visit": visit, "form": dict(form)}
        return self.post("submissions/", document, key=key)

    def upload_zip(self, submission: str, files: Sequence[SimulatedFile]) -> Any:
        """Send files as one stored zip archive."""
        return self.request(
            "POST", f"submissions/{submission}/files/", body=StoredZip(files), content_type="application/zip"
        )

    def complete(self, submission: str) -> Any:
        return self.post(f"submissions/{submission}/complete/")

    def submission(self, submission: str) -> Document:
        return self.get(f"submissions/{submission}/")

    def series(self, **query: Any) -> Iterator[Document]:
        return self.every("series/", **query)

    def verdicts(self, series: str) -> list[Document]:
        return _rows(self.get(f"series/{series}/verdicts/"))

    def metrics(self, series: str) -> list[Document]:
        return _rows(self.get(f"series/{series}/metrics/"))

    def deviations(self, trial: str) -> Iterator[Document]:
        return self.every("deviations/", trial=trial)

    def change_events(self, trial: str) -> Iterator[Document]:
        return self.every("change-events/", trial=trial)

    def drift_alerts(self, trial: str) -> Iterator[Document]:
        return self.every("drift-alerts/", trial=trial)

    # Versions and locks

    def versions(self, kind: str, trial: str) -> list[Document]:
        """Return the versions of a kind: protocols, qc-profiles or harmonization-plans."""
        return list(self.every(f"{kind}/", trial=trial))

    def lock(self, kind: str, identity: str, *, password: str, meaning: str) -> Document:
        return self.post(f"{kind}/{identity}/lock/", {"password": password, "meaning": meaning})

    def algorithm_versions(self) -> list[Document]:
        return list(self.every("algorithm-versions/"))

    def algorithm_version(self, identity: str) -> Document:
        return self.get(f"algorithm-versions/{identity}/")

    def verify_algorithm_version(self, identity: str) -> Document:
        return self.post(f"algorithm-versions/{identity}/verify/")

    # Harmonization

    def feature_sets(self, trial: str) -> list[Document]:
        return list(self.every("feature-sets/", trial=trial))

    def import_features(self, trial: str, csv_text: str, metadata: Mapping[str, Any]) -> Document:
        """Send a feature table as a form with the fields file, trial and metadata."""
        boundary = "hub-demo-7c1f0a52"
        parts = [
            _field(boundary, "trial", trial),
            _field(boundary, "name", str(metadata["name"])),
            _field(boundary, "metadata", json.dumps(dict(metadata))),
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="features.csv"\r\n'
            f"Content-Type: text/csv\r\n\r\n{csv_text}\r\n--{boundary}--\r\n",
        ]
        content_type = f"multipart/form-data; boundary={boundary}"
        return self.request("POST", "feature-sets/", body="".join(parts).encode(), content_type=content_type)

    def start_run(self, plan: str, feature_set: str, *, key: str = "") -> Document:
        return self.post("harmonization-runs/", {"plan": plan, "feature_set": feature_set}, key=key)

    def runs(self, trial: str) -> list[Document]:
        return list(self.every("harmonization-runs/", trial=trial))

    def run(self, identity: str) -> Document:
        return self.get(f"harmonization-runs/{identity}/")

    def run_data(self, identity: str) -> str:
        """Return the harmonized table as CSV."""
        content = self.get(f"harmonization-runs/{identity}/data/")
        return content.decode() if isinstance(content, bytes) else str(content or "")


def _rows(answer: Any) -> list[Document]:
    return list(answer["results"] if isinstance(answer, dict) and "results" in answer else answer)


def _field(boundary: str, name: str, value: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
