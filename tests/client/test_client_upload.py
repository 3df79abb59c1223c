"""Folders, archives, configuration and retries, without a hub."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hub_client import HubClient, HubRequestFailed, HubUnreachable, folder, transport
from hub_client.__main__ import main
from hub_client.configuration import Configuration, NotConfigured, configuration_file, load, save
from hub_client.folder import FolderUnusable, archive_of, batches, files_in, read_file
from hub_client.printing import plain, print_csv
from hub_client.watching import Watch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(tmp_path):
    target = tmp_path / "images"
    (target / "b").mkdir(parents=True)
    for name, size in (("b/2.dcm", 30), ("a.dcm", 20), ("b/1.dcm", 10)):
        (target / name).write_bytes(name.encode() * size)
    (target / ".DS_Store").write_bytes(b"x")
    (target / "link").symlink_to(target / "a.dcm")
    return target


class Hub(BaseHTTPRequestHandler):
    """Answers with what `replies` say, one after the other; None breaks the connection off."""

    protocol_version = "HTTP/1.1"
    replies: ClassVar[list[tuple[int, Any] | None]] = []
    bodies: ClassVar[list[bytes]] = []

    def answer(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        reply = self.replies.pop(0)
        if reply is None:
            self.close_connection = True
            return
        status, document = reply
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "application/zip" if isinstance(document, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output free of the server's log."""


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    Hub.replies, Hub.bodies = [], []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    running.daemon_threads = False  # closing waits for answers under way, which would be the next test's
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    client = HubClient(f"http://127.0.0.1:{running.server_port}")
    yield client
    client.close()
    running.shutdown()
    running.server_close()
    thread.join()


def test_files_come_in_order_without_hidden_ones_and_links(images):
    assert [path.relative_to(images).as_posix() for path in files_in(images)] == [
        "a.dcm",
        "b/1.dcm",
        "b/2.dcm",
    ]


def test_what_is_no_folder_is_refused(images):
    with pytest.raises(FolderUnusable, match="is no folder"):
        files_in(images / "a.dcm")


def test_archives_are_limited_in_size_and_number(images, monkeypatch):
    files = [read_file(path, images) for path in files_in(images)]

    monkeypatch.setattr(folder, "ARCHIVE_FILES", 2)
    assert [[file.name for file in batch] for batch in batches(files)] == [["a.dcm", "b/1.dcm"], ["b/2.dcm"]]
    monkeypatch.setattr(folder, "ARCHIVE_BYTES", 1)
    assert [len(batch) for batch in batches(files)] == [1, 1, 1]


def test_an_archive_of_a_folder_reads_back(images):
    files = [read_file(path, images) for path in files_in(images)]
    archive = archive_of(files)

    content = b"".join(archive)

    assert len(content) == archive.length
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == {
            file.name: file.path.read_bytes() for file in files
        }


@pytest.mark.parametrize("content", [b"shorter", b"x" * 100, b"a.dcm" * 19 + b"b.dcm"])
def test_a_file_that_changes_while_it_is_sent_is_not_sent(images, hub, content):
    files = [read_file(images / "a.dcm", images)]
    (images / "a.dcm").write_bytes(content)

    with pytest.raises(FolderUnusable, match="changed while it was being sent"):
        hub.send_archive("7", archive_of(files))


def test_an_archive_is_sent_again_after_a_broken_connection(images, hub):
    Hub.replies = [None, (503, {"detail": "busy"}), (202, {"upload": "u"})]
    files = [read_file(path, images) for path in files_in(images)]

    assert hub.send_archive("7", archive_of(files)) == {"upload": "u"}
    assert len(Hub.bodies) == 3
    assert len(set(Hub.bodies)) == 1


def test_what_may_not_be_repeated_is_sent_once(hub):
    Hub.replies = [None, (201, {})]

    with pytest.raises(HubUnreachable):
        hub.post("queries/", {"title": "x"})
    assert len(Hub.bodies) == 1


def test_a_request_still_under_way_after_a_lost_answer_is_waited_for(hub):
    Hub.replies = [None, (409, {"detail": "still under way"}), (201, {"id": "7"})]

    opened = hub.open_submission(trial="t", site="s", subject="p", visit="v", form={}, key="k")

    assert opened == {"id": "7"}


def test_an_error_carries_the_problem_document(hub):
    problem = {"code": "conflict", "detail": "It is locked.", "errors": [{"field": "x", "message": "y"}]}
    Hub.replies = [(409, problem)]

    with pytest.raises(HubRequestFailed, match="It is locked.\n  x: y") as caught:
        hub.complete("7")
    assert (caught.value.status, caught.value.code, caught.value.problem) == (409, "conflict", problem)


def test_a_download_is_there_whole_or_not_at_all(hub, tmp_path):
    target = tmp_path / "package.zip"
    Hub.replies = [(404, {"detail": "gone"}), (200, b"content")]

    with pytest.raises(HubRequestFailed, match="gone"):
        hub.download_export("7", target)
    assert list(tmp_path.iterdir()) == []
    digest = hub.download_export("7", target)
    assert target.read_bytes() == b"content"
    assert digest == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_the_configuration_is_for_its_owner_alone(tmp_path):
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    path = save(Configuration("https://hub.example", "secret"), environment)

    assert path == configuration_file(environment)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(environment) == Configuration("https://hub.example", "secret")
    path.chmod(0o644)
    with pytest.raises(NotConfigured, match="chmod 600"):
        load(environment)


def test_the_environment_goes_before_the_file_and_a_token_stays_with_its_hub(tmp_path):
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    save(Configuration("https://hub.example", "secret"), environment)

    assert load({**environment, "HUB_URL": "https://hub.example/"}).token == "secret"
    assert load({**environment, "HUB_TOKEN": "other"}) == Configuration("https://hub.example", "other")
    with pytest.raises(NotConfigured, match="no token for https://elsewhere.example"):
        load({**environment, "HUB_URL": "https://elsewhere.example"})


def test_a_watched_folder_is_sent_when_it_has_come_to_rest(images):
    now = [max(path.stat().st_mtime for path in images.rglob("*.dcm")) + 5]
    watch = Watch(images, clock=lambda: now[0])

    assert watch.ready() == []
    now[0] += 60
    assert len(watch.ready()) == 3
    assert len(watch.ready()) == 3
    watch.sent(watch.ready())
    assert watch.ready() == []
    (images / "late.dcm").write_bytes(b"late")
    os.utime(images / "late.dcm", (now[0], now[0]))
    assert watch.ready() == []
    now[0] += 60
    assert watch.ready() == [images / "late.dcm"]


def test_without_a_hub_the_commands_say_what_to_do(environment, capsys, images):
    assert main(["status", "--trial", "DEMO"]) == 2
    assert "hub-client login" in capsys.readouterr().err
    environment.setenv("HUB_URL", "http://127.0.0.1:1")
    environment.setenv("HUB_TOKEN", "x")
    environment.setattr(transport, "FIRST_PAUSE_S", 0.0)
    assert main(["deviations", "--trial", "DEMO"]) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_names_from_files_cannot_steer_the_terminal(capsys):
    assert plain("a\x1b[2Jb\r\n\u202ec") == "a?[2Jb???c"
    print_csv(["a", "b"], [["=1+1", -2], [None, "x"]])
    assert capsys.readouterr().out.splitlines() == ["a,b", "'=1+1,-2", ",x"]


@pytest.mark.parametrize("command", [[str(ROOT / "hub-client")], ["-m", "hub_client"]])
def test_the_client_runs_from_a_clone_with_the_standard_library_alone(command):
    done = subprocess.run(
        [sys.executable, "-S", *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "upload" in done.stdout
