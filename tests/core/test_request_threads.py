"""Requests share threads one after the other, never at the same time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from asgiref.sync import sync_to_async

from hub.core.api.threads import THREADS_KEPT, ReusedThreadsHandler

WORK_S = 0.02


class _Handler(ReusedThreadsHandler):
    """Answers nothing; notes the thread of each request, which works for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []
        self.busy = 0

    async def handle(self, scope, receive, send):
        await sync_to_async(self._work, thread_sensitive=True)()

    def _work(self) -> None:
        self.threads.append(threading.get_ident())
        time.sleep(WORK_S)


async def _serve(handler: _Handler, at_once: int) -> None:
    await asyncio.gather(*(handler({"type": "http"}, None, None) for _ in range(at_once)))
    while handler.busy:
        await asyncio.sleep(0.001)


@pytest.fixture
def handler(monkeypatch) -> _Handler:
    made = _Handler()
    released = made._release

    def counted(thread):
        released(thread)
        made.busy -= 1

    monkeypatch.setattr(made, "_release", counted)
    return made


def test_requests_one_after_the_other_share_a_thread(handler):
    for _ in range(3):
        handler.busy = 1
        asyncio.run(_serve(handler, 1))

    assert len(handler.threads) == 3
    assert len(set(handler.threads)) == 1


def test_requests_at_the_same_time_have_threads_of_their_own_and_few_are_kept(handler):
    handler.busy = THREADS_KEPT + 4
    asyncio.run(_serve(handler, THREADS_KEPT + 4))

    assert len(set(handler.threads)) == THREADS_KEPT + 4
    assert len(handler._idle) == THREADS_KEPT


def test_a_request_does_not_wait_for_a_view_whose_client_left(handler, monkeypatch):
    second_done, first_saw_it = threading.Event(), []

    def work() -> None:
        handler.threads.append(threading.get_ident())
        if len(handler.threads) == 1:
            first_saw_it.append(second_done.wait(5))
        else:
            second_done.set()

    async def leave() -> None:
        first = asyncio.create_task(handler({"type": "http"}, None, None))
        while not handler.threads:
            await asyncio.sleep(0.001)
        first.cancel()
        await handler({"type": "http"}, None, None)
        await asyncio.gather(first, return_exceptions=True)
        while handler.busy:
            await asyncio.sleep(0.001)

    monkeypatch.setattr(handler, "_work", work)
    handler.busy = 2
    asyncio.run(leave())

    assert first_saw_it == [True]
    assert len(set(handler.threads)) == 2
