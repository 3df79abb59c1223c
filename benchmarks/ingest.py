"""How fast the hub receives: 2,000 MR instances of 256 x 256 until every verdict stands.

    python benchmarks/ingest.py --serve           (starts an empty hub of its own, in a temporary folder)
    python benchmarks/ingest.py --url http://127.0.0.1:8000 --token TOKEN

Beside it, with the same archives and clients, Orthanc where an `Orthanc` binary is on the PATH; it stores and
indexes, and neither de-identifies nor checks. With --serve the processor time of the hub's processes is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured_hub import (
    Archive,
    Hub,
    answers,
    await_that,
    await_verdicts,
    make_archives,
    prepare,
    send,
    served_hub,
)

FLOOR_INSTANCES_PER_S = 300
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def measure(hub: Hub, archives: list[Archive], clients: int) -> dict[str, float]:
    """Send every archive with several clients at a time; return rates until the last verdict."""
    mark = archives[0].subject.partition("-")[0]
    place = prepare(hub, archives, mark)
    before = processor_seconds(hub)
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda archive: send(hub, place, archive), archives))
    accepted = time.perf_counter() - begun
    await_verdicts(hub, place, archives, 0.2)
    elapsed = time.perf_counter() - begun
    count = sum(archive.instances for archive in archives)
    size = sum(len(archive.content) for archive in archives)
    result = {
        "instances": count,
        "seconds": elapsed,
        "accepted_per_s": count / accepted,
        "instances_per_s": count / elapsed,
        "megabytes_per_s": size / elapsed / 1e6,
    }
    used = processor_seconds(hub) - before
    return result | ({"cpu_ms_per_instance": used / count * 1e3} if hub.state else {})


def processor_seconds(hub: Hub) -> float:
    """Return the processor time that the processes of our own hub have used so far; 0 for another's hub.

    Source: proc(5), stat, fields 4 and 14 to 17. Time of a process that died meanwhile counts with its parent.
    """
    if hub.state is None:
        return 0.0
    recorded = json.loads((hub.state / "run" / "processes.json").read_text(encoding="utf-8"))
    parents, used = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        number = int(file.parent.name)
        parents[number], used[number] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = {row["pid"] for row in recorded}
    while added := {number for number, parent in parents.items() if parent in ours} - ours:
        ours |= added
    return sum(used.get(number, 0) for number in ours) / _TICKS_PER_S


def measure_orthanc(archives: list[Archive], clients: int) -> dict[str, float] | None:
    """Send the same archives to Orthanc; None where it is not installed."""
    binary = shutil.which("Orthanc")
    if binary is None:
        return None
    with tempfile.TemporaryDirectory() as folder, _orthanc(binary, Path(folder)) as url:
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            sent = pool.map(
                lambda item: requests.post(f"{url}/instances", data=item.content, timeout=300), archives
            )
            for answer in sent:
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
        await_that(lambda: answers("http://127.0.0.1:18042/system"))
        yield "http://127.0.0.1:18042"
    finally:
        process.terminate()
        process.wait(timeout=30)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=os.environ.get("HUB_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--token", default=os.environ.get("HUB_TOKEN", ""))
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--series", type=int, default=10)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    archives = make_archives(options.series, options.slices, options.matrix, uuid.uuid4().hex[:8])
    if options.serve:
        with served_hub(options.port) as hub:
            result = measure(hub, archives, options.clients)
    elif options.token:
        result = measure(Hub(options.url, options.token), archives, options.clients)
    else:
        parser.error("give --token (python manage.py create_token USER) or --serve")
    print(json.dumps({"hub": result, "orthanc": measure_orthanc(archives, options.clients)}, indent=2))
    fast = result["instances_per_s"] >= FLOOR_INSTANCES_PER_S
    print(f"at least {FLOOR_INSTANCES_PER_S} instances/s: {'yes' if fast else 'NO'}")
    return 0 if fast else 1


if __name__ == "__main__":
    sys.exit(main())
