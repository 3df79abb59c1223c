"""Clients that break off, dawdle, or find the disk full."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.faults.load import CarefulClient, Load, Sent, assert_nothing_lost
from tests.faults.private_hub import PrivateHub, await_that

pytestmark = pytest.mark.faults

DAWDLERS = 200
HEALTH_P95_S = 1.0
SMALL_DISK_BYTES = 8 * 1024**2


def _connect(hub: PrivateHub) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hub.layout.port), timeout=10)


def _head(hub: PrivateHub, submission: str, length: int) -> bytes:
    return (
        f"POST /api/v1/submissions/{submission}/files/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Token {hub.token}\r\nContent-Type: application/zip\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _on_spool(hub: PrivateHub) -> list[str]:
    return [path.name for path in (hub.layout.var / "data" / "spool").iterdir()]


def test_bodies_cut_short_leave_nothing(hub: PrivateHub, load: Load) -> None:
    (archive,) = load.archives(1)
    client = CarefulClient(hub, Sent())
    submission = load.open(client, archive.subject)
    for share in range(20):
        with _connect(hub) as connection:
            connection.sendall(_head(hub, submission, len(archive.content)))
            connection.sendall(archive.content[: len(archive.content) * share // 20])

    await_that(lambda: not _on_spool(hub), 10)
    assert hub.rows("SELECT count(*) FROM sites_app_upload WHERE submission_id = %s", submission) == [(0,)]
    sent = Sent()
    load.send(archive, sent)
    assert_nothing_lost(hub, sent)


def test_two_hundred_dawdling_clients_do_not_keep_the_others_waiting(hub: PrivateHub, load: Load) -> None:
    (archive,) = load.archives(1)
    submission = load.open(CarefulClient(hub, Sent()), archive.subject)
    begin = _head(hub, submission, len(archive.content))
    times = []
    with ExitStack() as stack:
        for number in range(DAWDLERS):
            connection = stack.enter_context(_connect(hub))
            connection.sendall(begin + archive.content[:1000] if number % 2 else begin[:-2])
        for _ in range(100):
            begun = time.perf_counter()
            assert requests.get(f"{hub.url}/health/live", timeout=30).status_code == 200
            times.append(time.perf_counter() - begun)

    assert sorted(times)[94] < HEALTH_P95_S


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """Put a small file system of its own over a folder; skip where this user or machine does not allow it."""
    size = f"size={SMALL_DISK_BYTES}"
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let its root mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_spool_is_answered_507_and_keeps_nothing(hub: PrivateHub, load: Load) -> None:
    (archive,) = load.archives(1, slices=16, matrix=512)
    assert len(archive.content) > SMALL_DISK_BYTES
    client = CarefulClient(hub, Sent())
    submission = load.open(client, archive.subject)
    with _small_disk(hub.layout.var / "data" / "spool"):
        answer = requests.post(
            f"{hub.url}/api/v1/submissions/{submission}/files/",
            data=archive.content,
            headers={"Authorization": f"Token {hub.token}", "Content-Type": "application/zip"},
            timeout=60,
        )
        assert answer.status_code == 507, answer.text
        assert _on_spool(hub) == []

    assert hub.rows("SELECT count(*) FROM sites_app_upload WHERE submission_id = %s", submission) == [(0,)]
    sent = Sent()
    load.send(archive, sent)
    assert_nothing_lost(hub, sent)


def test_a_full_image_store_delays_and_loses_nothing(hub: PrivateHub, load: Load) -> None:
    (archive,) = load.archives(1, slices=16, matrix=512)
    sent = Sent()
    packs = hub.layout.var / "data" / "packs"
    with _small_disk(packs):
        submission = load.send(archive, sent)
        upload = sent.uploads[submission]
        await_that(
            lambda: (
                hub.rows("SELECT count(*) FROM core_job WHERE key = %s AND attempts > 0", upload) == [(1,)]
            ),
            30,
        )
        time.sleep(2)
        assert not list(packs.rglob("*.pack"))

    assert_nothing_lost(hub, sent)
