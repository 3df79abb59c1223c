"""Hostile files sent to the public door of a running hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.hostile_files import Hostile, hostile_files
from tests.faults.load import CarefulClient, Load, Sent, assert_nothing_lost
from tests.faults.private_hub import PrivateHub, await_that

pytestmark = pytest.mark.faults

FINAL_WITHIN_S = 20.0
REFUSED = ("quarantined", "failed")
PEAK_RISE_BYTES = 500 * 1024**2


def _peak_bytes(pid: int) -> int:
    """Return the most memory a process ever had resident. Source: proc(5), VmHWM of status."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


def _send(load: Load, hostile: Hostile, seen: Sent) -> tuple[str, float]:
    """Send a hostile body and complete its submission; return its final state and the seconds until then."""
    (archive,) = load.archives(1, slices=1, matrix=32)
    client = CarefulClient(load.hub, seen)
    submission = load.open(client, archive.subject)
    headers = {"Content-Type": hostile.content_type}
    path = f"submissions/{submission}/files/"
    answer = client.request("POST", path, data=hostile.content, headers=headers)
    assert answer.status_code in (202, 400), f"{hostile.name}: {answer.status_code} {answer.text}"
    client.complete(submission)
    query = "SELECT state FROM sites_app_submission WHERE id = %s"

    def state() -> str:
        return str(load.hub.rows(query, submission)[0][0])

    waited = await_that(lambda: state() not in ("received", "processing"), 60, every_s=0.03)
    return state(), waited


def _processes(hub: PrivateHub) -> list[int]:
    return [pid for name in ("web", "worker-ingest", "worker-check") for pid in hub.children(name)]


def test_hostile_files_are_refused_and_harm_nothing(hub: PrivateHub, load: Load) -> None:
    before = {pid: _peak_bytes(pid) for pid in _processes(hub)}
    slow, taken, seen = [], [], Sent()
    for hostile in hostile_files():
        state, waited = _send(load, hostile, seen)
        if waited > FINAL_WITHIN_S:
            slow.append((hostile.name, waited))
        if state not in REFUSED and not hostile.harmless:
            taken.append((hostile.name, state))

    assert (slow, taken) == ([], [])
    assert max(seen.statuses) < 500
    assert _processes(hub) == list(before)
    assert [pid for pid, peak in before.items() if _peak_bytes(pid) - peak > PEAK_RISE_BYTES] == []
    assert not Path("/tmp/evil.dcm").exists()
    sent = Sent()
    load.send(load.archives(1)[0], sent)
    assert_nothing_lost(hub, sent)
