"""Killed processes, lost queues and restarted databases, in the middle of uploads."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.load import Load, Sending, assert_nothing_lost
from tests.faults.private_hub import PrivateHub, await_that

pytestmark = pytest.mark.faults

CLIENTS = 4
SERIES = 10


def _acknowledged(sending: Sending, count: int) -> None:
    await_that(lambda: len(sending.sent.acknowledged) >= count, 60, every_s=0.01)


def _running(hub: PrivateHub, kind: str) -> list[int]:
    """Return the numbers of the processes that run jobs of a kind."""
    found = hub.rows("SELECT worker FROM core_job WHERE state = 'running' AND kind = %s", kind)
    return [int(worker.rpartition(":")[2]) for (worker,) in found]


def test_killed_workers(hub: PrivateHub, load: Load) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = load.start(pool, load.archives(SERIES))
        with hub.locked_table("sites_app_instance"):
            await_that(lambda: bool(_running(hub, "sites.process_upload")), 30, every_s=0.02)
            child = _running(hub, "sites.process_upload")[0]
            assert child in hub.children("worker-ingest")
            os.kill(child, signal.SIGKILL)
        with hub.locked_table("qc_app_seriescheck"):
            await_that(lambda: bool(_running(hub, "qc.check_series")), 30, every_s=0.02)
            hub.kill("worker-check")
            hub.kill("worker-ingest")
        sent = sending.join()

    assert len(sent.acknowledged) == SERIES
    assert_nothing_lost(hub, sent)
    assert hub.rows("SELECT count(*) > 1 FROM core_job WHERE attempts > 1") == [(True,)]


def test_a_flushed_and_a_killed_queue(hub: PrivateHub, load: Load) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = load.start(pool, load.archives(SERIES))
        _acknowledged(sending, 2)
        hub.redis().flushall()
        _acknowledged(sending, 5)
        hub.redis().flushall()
        hub.kill("redis")
        sent = sending.join()

    assert len(sent.acknowledged) == SERIES
    assert_nothing_lost(hub, sent)


def test_a_restarted_database(hub: PrivateHub, load: Load) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = load.start(pool, load.archives(SERIES))
        _acknowledged(sending, 2)
        hub.restart_postgres(signal.SIGINT)
        _acknowledged(sending, 5)
        hub.restart_postgres(signal.SIGQUIT)
        sent = sending.join()

    assert len(sent.acknowledged) == SERIES
    assert_nothing_lost(hub, sent)


def test_a_web_server_killed_in_the_middle_of_uploads(hub: PrivateHub, load: Load) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = load.start(pool, load.archives(SERIES), slow_s=0.02)
        time.sleep(0.7)
        hub.kill("web")
        _acknowledged(sending, 3)
        hub.kill("web")
        sent = sending.join()

    assert len(sent.acknowledged) == SERIES
    assert_nothing_lost(hub, sent)


def test_a_whole_submission_sent_again(hub: PrivateHub, load: Load) -> None:
    archives = load.archives(4)
    with ThreadPoolExecutor(CLIENTS) as pool:
        first = load.start(pool, archives).join()
    assert_nothing_lost(hub, first)
    with ThreadPoolExecutor(CLIENTS) as pool:
        again = load.start(pool, archives).join()

    ids = tuple(again.acknowledged)
    final = "SELECT count(*) FROM sites_app_submission WHERE id::text IN %s AND state = 'accepted'"
    await_that(lambda: hub.rows(final, ids) == [(4,)], 60)
    counts = hub.rows("SELECT counts FROM sites_app_submission WHERE id::text IN %s", ids)
    assert [(each["duplicate"], each["instances"]) for (each,) in counts] == [(8, 0)] * 4
    assert_nothing_lost(hub, first)
