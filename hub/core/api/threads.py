"""Serves requests on threads that are used again, so that each keeps its database connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from django.core.handlers.asgi import ASGIHandler

# A PostgreSQL connection is kept open for each: the web processes' sum stays far below max_connections.
THREADS_KEPT = 8


class ReusedThreadsHandler(ASGIHandler):
    """Django's handler, whose own starts a thread for each request and with it a database connection.

    A new PostgreSQL process per request costs more than most of the queries it then answers. There are as many
    threads as requests at a time, and THREADS_KEPT afterwards: waiting for one would let slow clients block others.
    """

    def __init__(self) -> None:
        super().__init__()
        self._idle: deque[ThreadPoolExecutor] = deque()

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Any],
    ) -> None:
        try:
            thread = self._idle.pop()
        except IndexError:
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="request")
        try:
            async with ThreadSensitiveContext(executor=thread):
                await self.handle(scope, receive, send)
        finally:
            # A client that left may have left its view running: the thread is free when this call is through.
            thread.submit(int).add_done_callback(lambda _: self._release(thread))

    def _release(self, thread: ThreadPoolExecutor) -> None:
        if len(self._idle) < THREADS_KEPT:
            self._idle.append(thread)
        else:
            thread.shutdown(wait=False)
