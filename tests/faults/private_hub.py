"""A complete hub of its own: PostgreSQL, Redis, web, workers and scheduler, started by the launcher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import redis
import requests

from hub.launcher.environment import OWNER_ROLE, hub_environment, read_secrets
from hub.launcher.layout import REPOSITORY, Layout

START_LIMIT_S = 240.0
_PASSWORD = "a-password-of-the-tests"
# One hour later than the janitor's patience: what is no orphan then never was one.
_SETTLE = """
import time
from django.core.management import call_command
from sites_app.ingest.sweeping import ORPHAN_AFTER_S, remove_orphans
print("orphans removed:", remove_orphans(time.time() + ORPHAN_AFTER_S + 60))
call_command("verify_audit")
"""


class PrivateHub:
    """A running hub and the means to hurt it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.url = layout.base_url
        self.token = ""

    def pid(self, name: str) -> int:
        """Return the number of a process as the launcher recorded it."""
        rows = json.loads((self.layout.run / "processes.json").read_text(encoding="utf-8"))
        return int(next(row["pid"] for row in rows if row["name"] == name))

    def children(self, name: str) -> list[int]:
        pid = self.pid(name)
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process and all that it started."""
        os.killpg(self.pid(name), signal.SIGKILL)

    def restart_postgres(self, how: signal.Signals) -> None:
        """Stop the server (SIGINT: fast, SIGQUIT: immediate) and wait until the launcher's new one answers."""
        old = self.pid("postgres")
        os.kill(old, how)
        await_that(lambda: not Path(f"/proc/{old}").exists() and self.pid("postgres") != old, 30)
        await_that(self._database_answers, 30)

    def _database_answers(self) -> bool:
        try:
            return self.rows("SELECT 1") == [(1,)]
        except psycopg2.OperationalError:
            return False

    def redis(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.layout.run / "redis.sock"))

    def connection(self) -> Any:
        return psycopg2.connect(host=str(self.layout.run / "postgres"), user=OWNER_ROLE, dbname="hub")

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = self.connection()
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall())
        finally:
            connection.close()

    @contextmanager
    def locked_table(self, table: str) -> Iterator[None]:
        """Let nobody write to a table, so that jobs stop in the middle."""
        connection = self.connection()
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield
        finally:
            connection.close()

    def settle(self) -> None:
        """Run the janitor as if an hour had passed, then verify the audit chain; both must succeed."""
        self.manage("shell", "-c", _SETTLE)

    def manage(self, *arguments: str) -> None:
        """Run manage.py as the hub's own processes run; the secrets of the test run itself are not for it."""
        environment = hub_environment(self.layout, self.layout.run)
        environment |= read_secrets(self.layout.secrets / "hub.env")
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log_in(self) -> None:
        body = {"username": "admin", "password": _PASSWORD}
        answer = requests.post(f"{self.url}/api/v1/auth/login/", json=body, timeout=30)
        answer.raise_for_status()
        self.token = answer.json()["token"]


def await_that(condition: Callable[[], bool], seconds: float, every_s: float = 0.1) -> float:
    """Wait until a condition holds and return how many seconds that took; fail when it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not so after {seconds:.0f} s"
        time.sleep(every_s)
    return time.monotonic() - begun


@contextmanager
def running_hub(folder: Path) -> Iterator[PrivateHub]:
    """Start a hub whose whole state lies in `folder`, and end it."""
    layout = Layout(REPOSITORY, folder, _free_port())
    # The services of the test run itself are not for this hub.
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HUB_", "DJANGO_"))}
    ours |= {"VAR": str(folder), "PORT": str(layout.port), "HUB_ADMIN_PASSWORD": _PASSWORD}
    said = folder / "launcher.log"
    with said.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "hub.launcher", "--end-with-parent", "serve"],
            cwd=REPOSITORY,
            env=ours,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        await_that(lambda: process.poll() is not None or "ready http" in said.read_text(), START_LIMIT_S)
        assert process.poll() is None, said.read_text()
        hub = PrivateHub(layout)
        hub.log_in()
        yield hub
    finally:
        process.terminate()
        process.wait(timeout=90)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
