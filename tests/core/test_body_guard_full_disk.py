"""A disk that is full while a request body arrives."""

from __future__ import annotations

import asyncio
import errno
import json

import pytest

from hub.core.api.body_guard import BodyGuard

SCOPE = {"type": "http", "path": "/api/v1/submissions/1/files/", "headers": []}


def _answer(error: OSError) -> list[dict]:
    sent: list[dict] = []

    async def application(scope, receive, send):
        raise error

    async def send(message):
        sent.append(message)

    asyncio.run(BodyGuard(application)(SCOPE, None, send))
    return sent


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_it_is_answered_507(number):
    start, body = _answer(OSError(number, "No space left on device"))

    assert start["status"] == 507
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert json.loads(body["body"])["code"] == "storage_full"


def test_any_other_error_of_the_system_is_not_taken_for_it():
    with pytest.raises(OSError, match="Input/output"):
        _answer(OSError(errno.EIO, "Input/output error"))
