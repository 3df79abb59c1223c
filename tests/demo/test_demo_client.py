"""The client of the public API against a real HTTP server."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from hub.demo.client import HubClient, HubRequestFailed, StoredZip
from hub.demo.simulator import SimulatedFile, simulate_mr


class Recorder(BaseHTTPRequestHandler):
    """Answers from a table of replies and keeps what was asked."""

    protocol_version = "HTTP/1.1"
    replies: ClassVar[dict[tuple[str, str], list[tuple[int, Any]]]] = {}
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []
    connections: ClassVar[set[Any]] = set()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, dict(self.headers), body))
        self.connections.add(self.client_address)
        waiting = self.replies[(self.command, self.path)]
        status, document = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output free of the server's log."""


@pytest.fixture
def server():
    Recorder.replies, Recorder.asked, Recorder.connections = {}, [], set()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_stored_zip_is_as_long_as_it_says_and_reads_back():
    files = (*simulate_mr(slices=3).files, SimulatedFile("sub/ü.txt", b"text", ""))
    archive = StoredZip(files)

    content = b"".join(archive)

    assert len(content) == archive.length
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == {
            file.name: file.data for file in files
        }
        assert {item.compress_type for item in opened.infolist()} == {zipfile.ZIP_STORED}


def test_an_empty_zip_is_valid():
    assert zipfile.ZipFile(io.BytesIO(b"".join(StoredZip(())))).namelist() == []


def test_login_is_remembered_and_the_connection_kept(server):
    Recorder.replies = {
        ("POST", "/api/v1/auth/login/"): [(200, {"token": "abc", "expiry": "2030-01-01T00:00:00Z"})],
        ("GET", "/api/v1/submissions/7/"): [(200, {"state": "accepted"})],
    }
    client = HubClient(server)

    client.login("monitor", "secret")
    answers = [client.submission("7")["state"] for _ in range(3)]

    assert answers == ["accepted"] * 3
    assert [headers.get("Authorization") for _, _, headers, _ in Recorder.asked] == [None] + ["Token abc"] * 3
    assert len(Recorder.connections) == 1
    client.close()


def test_an_archive_is_sent_whole_with_its_length(server):
    Recorder.replies = {("POST", "/api/v1/submissions/7/files/"): [(200, {"results": []})]}
    files = simulate_mr(slices=2).files
    client = HubClient(server)

    client.upload_zip("7", files)

    _, _, headers, body = Recorder.asked[0]
    assert headers["Content-Type"] == "application/zip"
    assert int(headers["Content-Length"]) == len(body) == StoredZip(files).length
    assert zipfile.ZipFile(io.BytesIO(body)).testzip() is None
    client.close()


def test_all_pages_of_a_list_are_read(server):
    following = f"{server}/api/v1/deviations/?cursor=b&limit=100"
    Recorder.replies = {
        ("GET", "/api/v1/deviations/?limit=100&trial=t"): [
            (200, {"next": following, "previous": None, "results": [{"id": 1}, {"id": 2}]})
        ],
        ("GET", "/api/v1/deviations/?cursor=b&limit=100"): [
            (200, {"next": None, "previous": None, "results": [{"id": 3}]})
        ],
    }
    client = HubClient(server)

    assert [row["id"] for row in client.deviations("t")] == [1, 2, 3]
    client.close()


def test_the_hub_s_own_words_are_in_the_error(server):
    problem = {
        "title": "The input is not valid",
        "code": "invalid_input",
        "detail": "The subject S09 is unknown.",
        "errors": [{"field": "subject", "message": "unknown"}],
    }
    Recorder.replies = {("POST", "/api/v1/submissions/"): [(400, problem)]}
    client = HubClient(server)

    with pytest.raises(HubRequestFailed, match="The subject S09 is unknown.\n  subject: unknown") as caught:
        client.open_submission(trial="t", site="S09", subject="S09-001", visit="baseline", form={}, key="k")

    assert (caught.value.status, caught.value.code) == (400, "invalid_input")
    assert Recorder.asked[0][2]["Idempotency-Key"] == "k"
    client.close()


def test_a_hub_that_is_busy_is_asked_again(server):
    Recorder.replies = {
        ("GET", "/api/v1/submissions/7/"): [(503, {"detail": "busy"}), (200, {"state": "open"})]
    }
    client = HubClient(server)

    assert client.submission("7")["state"] == "open"
    assert len(Recorder.asked) == 2
    client.close()


def test_looking_up_a_row_that_is_not_alone_is_refused(server):
    rows = {"next": None, "results": [{"id": "1", "code": "DEMO"}, {"id": "2", "code": "OTHER"}]}
    Recorder.replies = {
        ("GET", "/api/v1/trials/?limit=100&code=DEMO"): [(200, rows)],
        ("GET", "/api/v1/trials/?limit=100&code=NONE"): [(200, rows)],
    }
    client = HubClient(server)

    assert client.trial_id("DEMO") == "1"
    with pytest.raises(LookupError, match="0 rows"):
        client.trial_id("NONE")
    client.close()


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ValueError, match="http://host:port"):
        HubClient("127.0.0.1:8000")
