"""Requests to the hub's API: one kept-alive connection, retries of what is safe to repeat, problems as errors."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from hub_client.archives import StoredZip

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
ATTEMPTS = 4
FIRST_PAUSE_S = 0.5
PIECE_BYTES = 1 << 20
_PAGE = 100


class HubRequestFailed(Exception):
    """The hub answered with an error; `problem` is its problem document, the message the hub's own words."""

    def __init__(self, method: str, path: str, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))
        detail = problem.get("detail") or problem.get("title") or "no reason given"
        errors = problem.get("errors") or []
        listed = "".join(f"\n  {item.get('field', '')}: {item.get('message', '')}" for item in errors[:10])
        super().__init__(f"{method} {path} answered {status}: {detail}{listed}")


class HubUnreachable(ConnectionError):
    """No answer came from the hub; whether the request was carried out is not known."""


class Transport:
    """One connection to a hub; not to be shared between threads."""

    def __init__(self, base_url: str, token: str = "", timeout_s: float = 120.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is no address of a hub; write it as http://host:port.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._prefix = parts.path.rstrip("/") + "/api/v1/"
        self.base_url = base_url
        self.token = token

    def close(self) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | StoredZip | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> Any:
        """Send one request and return the decoded JSON, the bytes of any other content, or None.

        A GET, a POST with an Idempotency-Key and what is `repeatable` are sent again where no answer comes.
        Raises HubRequestFailed for an error status, HubUnreachable where no answer came.
        """
        sent = self._headers(headers)
        if body is not None:
            sent["Content-Type"] = content_type
            sent["Content-Length"] = str(body.length if isinstance(body, StoredZip) else len(body))
        safe = repeatable or method == "GET" or "Idempotency-Key" in sent
        status, answered, content = self._answer(method, path, body, sent, safe)
        value = _decoded(answered, content)
        if status >= 400:
            raise _failure(method, path, status, value, content)
        return value

    def download(self, path: str, target: Path) -> str:
        """Stream an answer into a file and return its SHA-256; the file is there whole or not at all.

        Raises HubRequestFailed, HubUnreachable, OSError where it cannot be written.
        """
        partial = target.with_name(target.name + ".partial")
        try:
            self._connection.request("GET", self._prefix + path, headers=self._headers(None))
            response = self._connection.getresponse()
            if response.status >= 400:
                content = response.read()
                value = _decoded(response.headers.get("Content-Type", ""), content)
                raise _failure("GET", path, response.status, value, content)
            digest = _save(response, partial)
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            self._connection.close()
            partial.unlink(missing_ok=True)
            raise HubUnreachable(f"{self.base_url} broke off the download: {error}") from error
        os.replace(partial, target)
        return digest

    def get(self, path: str, **query: Any) -> Any:
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, document: Mapping[str, Any] | None = None, *, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self.request("POST", path, body=json.dumps(document or {}).encode(), headers=headers)

    def every(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of all pages of a list."""
        answer = self.get(path, limit=_PAGE, **query)
        while True:
            yield from answer["results"]
            following = answer.get("next")
            if not following:
                return
            answer = self.request("GET", f"{path}?{urlsplit(following).query}")

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        sent = {"Accept": "application/json, */*;q=0.5", **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Token {self.token}"
        return sent

    def _answer(
        self, method: str, path: str, body: bytes | StoredZip | None, headers: Mapping[str, str], safe: bool
    ) -> tuple[int, str, bytes]:
        lost = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = self._exchange(method, self._prefix + path, body, headers)
            except HubUnreachable:
                if last or not safe:
                    raise
                lost = True
            else:
                # After a lost answer the first request may still be under way, which the hub answers with 409.
                under_way = lost and answer[0] == 409 and "Idempotency-Key" in headers
                if last or not (under_way or answer[0] in RETRIED_STATUSES):
                    return answer
            time.sleep(FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def _exchange(
        self, method: str, target: str, body: bytes | StoredZip | None, headers: Mapping[str, str]
    ) -> tuple[int, str, bytes]:
        for fresh in (self._connection.sock is None, True):
            try:
                self._send(method, target, body, headers)
                response = self._connection.getresponse()
                return response.status, response.headers.get("Content-Type", ""), response.read()
            except (http.client.RemoteDisconnected, http.client.CannotSendRequest, BrokenPipeError) as error:
                # A server may close a kept-alive connection between two requests.
                self._connection.close()
                if fresh:
                    raise HubUnreachable(f"{self.base_url} closed the connection: {error}") from error
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise HubUnreachable(f"{self.base_url} cannot be reached: {error}") from error
            except BaseException:
                self._connection.close()
                raise
        raise AssertionError("unreachable")

    def _send(
        self, method: str, target: str, body: bytes | StoredZip | None, headers: Mapping[str, str]
    ) -> None:
        try:
            self._connection.request(method, target, body=body, headers=dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            # A hub that refuses a body answers before it has read all of it: the answer says why.
            if body is None or self._connection.sock is None:
                raise


def _decoded(content_type: str, content: bytes) -> Any:
    return json.loads(content) if content and "json" in content_type else content or None


def _failure(method: str, path: str, status: int, value: Any, content: bytes) -> HubRequestFailed:
    problem = value if isinstance(value, dict) else {"detail": str(content[:200], "utf-8", "replace")}
    return HubRequestFailed(method, path, status, problem)


def _save(response: http.client.HTTPResponse, partial: Path) -> str:
    hashed, size = hashlib.sha256(), 0
    with partial.open("wb") as stream:
        while piece := response.read(PIECE_BYTES):
            stream.write(piece)
            hashed.update(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    expected = response.headers.get("Content-Length")
    if expected is not None and size != int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - size)
    return hashed.hexdigest()
