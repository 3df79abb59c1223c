"""A careful client that sends simulated series, and the proof that nothing it was promised is lost."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from hub.demo.simulator import simulate_mr
from tests.factories.dicom_files import zipped
from tests.faults.private_hub import PrivateHub, await_that

FINAL_WITHIN_S = 60.0
_RETRY_FOR_S = 90.0
_ALLOWED_FAULTS = frozenset({503, 507})
_PIECE_BYTES = 4096
_seeds = iter(range(1_000_000))


@dataclass(frozen=True)
class Archive:
    """One series of one subject as a stored zip, with the digest of each of its files."""

    subject: str
    content: bytes
    digests: frozenset[str]


@dataclass
class Sent:
    """What the hub has acknowledged: submissions whose completion was answered 2xx, by archive."""

    acknowledged: dict[str, Archive] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    uploads: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class SlowBody:
    """A body that is sent in small pieces with pauses, so that something can happen meanwhile."""

    def __init__(self, content: bytes, pause_s: float) -> None:
        self._pieces = [content[at : at + _PIECE_BYTES] for at in range(0, len(content), _PIECE_BYTES)]
        self._length, self._pause_s = len(content), pause_s

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            time.sleep(self._pause_s)
            yield piece


class CarefulClient:
    """Repeats each request, with the same body, until it is answered 2xx or refused for good."""

    def __init__(self, hub: PrivateHub, sent: Sent) -> None:
        self._base = f"{hub.url}/api/v1/"
        self._headers = {"Authorization": f"Token {hub.token}"}
        self._sent = sent

    def request(self, method: str, path: str, slow_s: float = 0.0, **options: Any) -> requests.Response:
        deadline = time.monotonic() + _RETRY_FOR_S
        content = options.pop("data", None)
        headers = self._headers | options.pop("headers", {})
        while time.monotonic() < deadline:
            body = SlowBody(content, slow_s) if content is not None and slow_s else content
            try:
                answer = requests.request(
                    method, self._base + path, data=body, headers=headers, timeout=30, **options
                )
            except requests.RequestException:
                time.sleep(0.3)
                continue
            with self._sent.lock:
                self._sent.statuses[answer.status_code] += 1
            if answer.status_code < 500 and answer.status_code != 429:
                return answer
            time.sleep(0.3)
        raise AssertionError(f"{method} {path} was not answered within {_RETRY_FOR_S:.0f} s")

    def made(self, method: str, path: str, **options: Any) -> Any:
        answer = self.request(method, path, **options)
        assert answer.ok, f"{method} {path} answered {answer.status_code}: {answer.text}"
        return answer.json()

    def complete(self, submission: str) -> None:
        """Complete a submission; where the answer to an earlier try was lost, its state tells."""
        answer = self.request("POST", f"submissions/{submission}/complete/")
        if answer.status_code == 409:
            assert self.made("GET", f"submissions/{submission}/")["state"] != "open"
        else:
            assert answer.ok, answer.text


class Load:
    """Sends series to one trial from four threads."""

    def __init__(self, hub: PrivateHub) -> None:
        self.hub = hub
        client = CarefulClient(hub, Sent())
        code = f"F{uuid.uuid4().hex[:8]}"
        self.trial = client.made("POST", "trials/", json={"code": code, "title": "Faults"})["id"]
        site = {"trial": self.trial, "code": "S01", "name": "Site"}
        self.site = client.made("POST", "sites/", json=site)["id"]
        visit = {"trial": self.trial, "code": "V1", "title": "Baseline", "position": 1}
        client.made("POST", "visit-definitions/", json=visit)

    def archives(self, count: int, slices: int = 8, matrix: int = 64) -> list[Archive]:
        """Return series of subjects that the hub knows from now on."""
        client = CarefulClient(self.hub, Sent())
        made = []
        for _ in range(count):
            seed = next(_seeds)
            files = simulate_mr(slices=slices, rows=matrix, columns=matrix, seed=seed).files
            digests = frozenset(hashlib.sha256(file.data).hexdigest() for file in files)
            made.append(Archive(f"P{seed:04d}", zipped(files), digests))
            subject = {"trial": self.trial, "site": self.site, "code": made[-1].subject}
            client.made("POST", "subjects/", json=subject)
        return made

    def open(self, client: CarefulClient, subject: str) -> str:
        body = {"trial": self.trial, "site": self.site, "subject": subject, "visit": "V1"}
        return str(client.made("POST", "submissions/", json=body)["id"])

    def send(self, archive: Archive, sent: Sent, slow_s: float = 0.0) -> str:
        """Send one archive twice in one submission and complete it."""
        client = CarefulClient(self.hub, sent)
        submission = self.open(client, archive.subject)
        path, headers = f"submissions/{submission}/files/", {"Content-Type": "application/zip"}
        first = client.made("POST", path, data=archive.content, headers=headers, slow_s=slow_s)
        again = client.made("POST", path, data=archive.content, headers=headers)
        assert again["upload"] == first["upload"]
        client.complete(submission)
        with sent.lock:
            sent.uploads[submission] = first["upload"]
            sent.acknowledged[submission] = archive
        return submission

    def start(self, pool: ThreadPoolExecutor, archives: list[Archive], slow_s: float = 0.0) -> Sending:
        sent = Sent()
        return Sending(sent, [pool.submit(self.send, archive, sent, slow_s) for archive in archives])


@dataclass
class Sending:
    """Uploads under way."""

    sent: Sent
    futures: list[Future[str]]

    def join(self) -> Sent:
        for future in self.futures:
            future.result()
        return self.sent


def assert_nothing_lost(hub: PrivateHub, sent: Sent) -> float:
    """Prove every promise about what was acknowledged; return the seconds until the last verdict stood."""
    faults = {status for status in sent.statuses if status >= 500}
    assert faults <= _ALLOWED_FAULTS, sent.statuses
    waited = await_that(lambda: not _unfinished(hub, sent), FINAL_WITHIN_S, every_s=0.3)
    for submission, archive in sent.acknowledged.items():
        _assert_stored_once(hub, submission, archive)
    assert hub.rows("SELECT count(*) FROM core_job WHERE state = 'failed'") == [(0,)]
    hub.settle()
    assert _files_on_disk(hub, "spool") == set()
    packs = {str(identifier) for (identifier,) in hub.rows("SELECT id FROM sites_app_seriessegment")}
    assert {path.stem for path in (hub.layout.var / "data" / "packs").rglob("*.pack")} == packs
    return waited


def _unfinished(hub: PrivateHub, sent: Sent) -> list[tuple[Any, ...]]:
    """Return what is not final: submissions, and series of them without verdicts."""
    ids = tuple(sent.acknowledged)
    open_ones = hub.rows(
        "SELECT id FROM sites_app_submission WHERE id::text IN %s "
        "AND state IN ('open', 'received', 'processing')",
        ids,
    )
    return open_ones or hub.rows(
        "SELECT id FROM sites_app_series WHERE submission_id::text IN %s AND state <> 'checked'", ids
    )


def _assert_stored_once(hub: PrivateHub, submission: str, archive: Archive) -> None:
    """Every file sent is one instance, whose bytes in the pack have the digest of its row."""
    found = hub.rows(
        'SELECT i.original_sha256, i.sha256, i."offset", i.size, i.segment_id::text, s.trial_id::text '
        "FROM sites_app_instance i JOIN sites_app_seriessegment s ON s.id = i.segment_id "
        "JOIN sites_app_upload u ON u.id = s.upload_id WHERE u.submission_id = %s",
        submission,
    )
    assert sorted(row[0] for row in found) == sorted(archive.digests)
    for _, digest, offset, size, segment, trial in found:
        (path,) = (hub.layout.var / "data" / "packs" / trial).rglob(f"{segment}.pack")
        with path.open("rb") as pack:
            pack.seek(offset)
            assert hashlib.sha256(pack.read(size)).hexdigest() == digest
    (state, counts) = hub.rows("SELECT state, counts FROM sites_app_submission WHERE id = %s", submission)[0]
    assert (state, counts["files"], counts["instances"]) == ("accepted", len(found), len(found))
    verdicts = hub.rows(
        "SELECT count(*) FROM qc_app_seriescheck c JOIN sites_app_series s ON s.id = c.series_id "
        "WHERE c.is_current AND s.submission_id = %s AND s.state = 'checked' AND s.instance_count = %s",
        submission,
        len(found),
    )
    assert verdicts == [(1,)]


def _files_on_disk(hub: PrivateHub, area: str) -> set[str]:
    return {path.name for path in Path(hub.layout.var / "data" / area).iterdir() if path.is_file()}
