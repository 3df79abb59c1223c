"""How fast the hub receives: 2,000 MR instances until every verdict stands, and the latency of one series.

    python -m benchmarks.ingest --url http://127.0.0.1:8000 --token TOKEN
    python -m benchmarks.ingest --serve           (starts an empty hub of its own, in a temporary folder)

Runs Orthanc beside it, with the same archives, where an `Orthanc` binary is on the PATH.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from hub.demo.simulator import simulate_mr

FLOOR_INSTANCES_PER_S = 300
LATENCY_TARGET_S = 2.0
_TIMEOUT_S = 300.0
_REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Archive:
    """One series as a stored zip, sent for one subject."""

    subject: str
    content: bytes
    instances: int


class Hub:
    """The public API, one session a thread."""

    def __init__(self, url: str, token: str) -> None:
        self._base = f"{url.rstrip('/')}/api/v1"
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
    return [_archive(seed, slices, matrix, mark) for seed in range(series)]


def _archive(seed: int, slices: int, matrix: int, mark: str) -> Archive:
    simulated = simulate_mr(slices=slices, rows=matrix, columns=matrix, seed=seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in simulated.files:
            archive.writestr(file.name, file.data)
    return Archive(f"{mark}-{seed:03d}", buffer.getvalue(), len(simulated.files))


def prepare(hub: Hub, archives: list[Archive], mark: str) -> dict[str, str]:
    """Make a trial with one site, one visit and a subject per archive; return what names them."""
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

    _await(done, poll_s)


def _await(condition: Callable[[], bool], poll_s: float = 0.2) -> None:
    limit = time.perf_counter() + _TIMEOUT_S
    while not condition():
        if time.perf_counter() > limit:
            raise SystemExit(f"not final after {_TIMEOUT_S:.0f} s")
        time.sleep(poll_s)


def measure(hub: Hub, options: argparse.Namespace) -> dict[str, float]:
    """Return throughput of all series with several clients, and the latency of single ones."""
    mark = uuid.uuid4().hex[:8]
    archives = make_archives(options.series, options.slices, options.matrix, mark)
    place = prepare(hub, archives, mark)
    begun = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        list(pool.map(lambda archive: send(hub, place, archive), archives))
    accepted = time.perf_counter() - begun
    await_verdicts(hub, place, archives, 0.2)
    elapsed = time.perf_counter() - begun
    latencies = [_latency(hub, seed, options.matrix) for seed in range(options.singles)]
    count = sum(archive.instances for archive in archives)
    size = sum(len(archive.content) for archive in archives)
    return {
        "instances": count,
        "seconds": elapsed,
        "accepted_per_s": count / accepted,
        "instances_per_s": count / elapsed,
        "megabytes_per_s": size / elapsed / 1e6,
        "latency_median_s": statistics.median(latencies),
        "latency_worst_s": max(latencies),
    }


def _latency(hub: Hub, seed: int, matrix: int) -> float:
    """Return the seconds from the last byte of a 200-slice series to its verdicts."""
    mark = uuid.uuid4().hex[:8]
    archive = _archive(seed, 200, matrix, mark)
    place = prepare(hub, [archive], mark)
    sent = send(hub, place, archive)
    await_verdicts(hub, place, [archive], 0.05)
    return time.perf_counter() - sent


def measure_orthanc(options: argparse.Namespace) -> dict[str, float] | None:
    """Send the same archives to Orthanc; None where it is not installed."""
    binary = shutil.which("Orthanc")
    if binary is None:
        return None
    archives = make_archives(options.series, options.slices, options.matrix, "orthanc")
    with tempfile.TemporaryDirectory() as folder, _orthanc(binary, Path(folder)) as url:
        begun = time.perf_counter()
        with ThreadPoolExecutor(options.clients) as pool:
            answers = pool.map(
                lambda item: requests.post(f"{url}/instances", data=item.content, timeout=300), archives
            )
            for answer in answers:
                answer.raise_for_status()
        elapsed = time.perf_counter() - begun
    return {"instances_per_s": sum(item.instances for item in archives) / elapsed, "seconds": elapsed}


@contextmanager
def _orthanc(binary: str, folder: Path) -> Iterator[str]:
    configuration = folder / "orthanc.json"
    settings = {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "HttpPort": 18042,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
    }
    configuration.write_text(json.dumps(settings))
    process = subprocess.Popen(
        [binary, str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await(lambda: _answers("http://127.0.0.1:18042/system"))
        yield "http://127.0.0.1:18042"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.ConnectionError:
        return False


@contextmanager
def _served_hub(port: int) -> Iterator[Hub]:
    """Start an empty hub in a temporary folder and log its administrator in."""
    password = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        environment = {**os.environ, "VAR": folder, "PORT": str(port), "HUB_ADMIN_PASSWORD": password}
        process = subprocess.Popen(
            [sys.executable, "-m", "hub.launcher", "serve"], env=environment, cwd=_REPOSITORY
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await(lambda: _answers(f"{url}/health/ready"))
            login = {"username": "admin", "password": password}
            answer = requests.post(f"{url}/api/v1/auth/login/", json=login, timeout=30)
            answer.raise_for_status()
            yield Hub(url, answer.json()["token"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=os.environ.get("HUB_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--token", default=os.environ.get("HUB_TOKEN", ""))
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--singles", type=int, default=5, help="series of 200 slices sent one at a time")
    options = parser.parse_args()
    if options.serve:
        with _served_hub(options.port) as hub:
            result = measure(hub, options)
    elif options.token:
        result = measure(Hub(options.url, options.token), options)
    else:
        parser.error("give --token (python manage.py create_token USER) or --serve")
    beside = measure_orthanc(options)
    print(json.dumps({"hub": result, "orthanc": beside}, indent=2))
    fast = result["instances_per_s"] >= FLOOR_INSTANCES_PER_S
    prompt = result["latency_median_s"] <= LATENCY_TARGET_S
    print(f"at least {FLOOR_INSTANCES_PER_S} instances/s: {'yes' if fast else 'NO'}")
    print(f"200 slices within {LATENCY_TARGET_S:.0f} s: {'yes' if prompt else 'NO'}")
    return 0 if fast and prompt else 1


if __name__ == "__main__":
    sys.exit(main())
