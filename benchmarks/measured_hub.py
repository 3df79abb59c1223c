"""A hub to measure: started empty for a benchmark, filled with simulated series through its public API."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from hub.demo.simulator import simulate_mr

_TIMEOUT_S = 300.0
_REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Archive:
    """One series as a stored zip, sent for one subject."""

    subject: str
    content: bytes
    instances: int


class Hub:
    """The public API, one session a thread; `state` and the administrator's `password` where it is our own."""

    def __init__(self, url: str, token: str, state: Path | None = None, password: str = "") -> None:
        self.url, self.state, self.password = url.rstrip("/"), state, password
        self._base = f"{self.url}/api/v1"
        self._headers = {"Authorization": f"Token {token}"}

    def session(self) -> requests.Session:
        session = requests.Session()
        session.headers.update(self._headers)
        return session

    def call(self, session: requests.Session, method: str, path: str, **options: object) -> dict:
        answer = session.request(method, f"{self._base}/{path}", timeout=120, **options)  # type: ignore[arg-type]
        if answer.status_code >= 400:
            raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json()  # type: ignore[no-any-return]


def make_archives(series: int, slices: int, matrix: int, mark: str) -> list[Archive]:
    """Return one stored zip per series, each of another patient."""
    return [make_archive(seed, slices, matrix, mark) for seed in range(series)]


def make_archive(seed: int, slices: int, matrix: int, mark: str) -> Archive:
    simulated = simulate_mr(slices=slices, rows=matrix, columns=matrix, seed=seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in simulated.files:
            archive.writestr(file.name, file.data)
    return Archive(f"{mark}-{seed:03d}", buffer.getvalue(), len(simulated.files))


def prepare(hub: Hub, archives: list[Archive], mark: str) -> dict[str, str]:
    """Make a trial with one site, one visit and a subject per archive; return what names them.

    The trial's code ends in `mark`.
    """
    session = hub.session()
    trial = hub.call(session, "POST", "trials/", json={"code": f"BENCH-{mark}", "title": "Benchmark"})["id"]
    site = hub.call(
        session, "POST", "sites/", json={"trial": trial, "code": "B01", "name": "Benchmark site"}
    )["id"]
    visit = {"trial": trial, "code": "V1", "title": "Baseline", "position": 1}
    hub.call(session, "POST", "visit-definitions/", json=visit)
    for archive in archives:
        body = {"trial": trial, "site": site, "code": archive.subject}
        hub.call(session, "POST", "subjects/", json=body)
    return {"trial": trial, "site": site, "visit": "V1"}


def send(hub: Hub, place: dict[str, str], archive: Archive) -> float:
    """Open a submission, send one archive and complete it; return when the last byte was answered."""
    session = hub.session()
    opened = hub.call(session, "POST", "submissions/", json={**place, "subject": archive.subject})["id"]
    hub.call(
        session,
        "POST",
        f"submissions/{opened}/files/",
        data=archive.content,
        headers={"Content-Type": "application/zip"},
    )
    sent = time.perf_counter()
    hub.call(session, "POST", f"submissions/{opened}/complete/")
    return sent


def await_verdicts(hub: Hub, place: dict[str, str], archives: list[Archive], poll_s: float) -> None:
    """Wait until every instance of a trial is received and its series checked."""
    session = hub.session()
    wanted = sum(archive.instances for archive in archives)

    def done() -> bool:
        found = hub.call(session, "GET", f"series/?trial={place['trial']}&state=checked&limit=1000")[
            "results"
        ]
        return sum(item["instance_count"] for item in found) == wanted

    await_that(done, poll_s)


def await_that(condition: Callable[[], bool], poll_s: float = 0.2) -> None:
    limit = time.perf_counter() + _TIMEOUT_S
    while not condition():
        if time.perf_counter() > limit:
            raise SystemExit(f"not final after {_TIMEOUT_S:.0f} s")
        time.sleep(poll_s)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).status_code == 200
    except requests.RequestException:
        return False


@contextmanager
def served_hub(port: int) -> Iterator[Hub]:
    """Start an empty hub in a temporary folder and log its administrator in."""
    password = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        environment = {**os.environ, "VAR": folder, "PORT": str(port), "HUB_ADMIN_PASSWORD": password}
        process = subprocess.Popen(
            [sys.executable, "-m", "hub.launcher", "serve"], env=environment, cwd=_REPOSITORY
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await_that(lambda: answers(f"{url}/health/ready"))
            login = {"username": "admin", "password": password}
            answer = requests.post(f"{url}/api/v1/auth/login/", json=login, timeout=30)
            answer.raise_for_status()
            yield Hub(url, answer.json()["token"], Path(folder), password)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
