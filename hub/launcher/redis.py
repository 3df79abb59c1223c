"""A private Redis behind a unix socket, with an append-only file flushed each second."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from hub.launcher.binaries import find_redis
from hub.launcher.console import LauncherError
from hub.launcher.layout import Layout
from hub.launcher.postgres import log_tail
from hub.launcher.processes import ProcessSpec, Supervisor

START_SECONDS = 20.0


def server(layout: Layout, socket_file: Path, log: Path) -> ProcessSpec:
    """Return the server process. Eviction is off: a queue that drops entries is no queue."""
    data = layout.var / "redis"
    data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(socket_file),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    argv = (str(find_redis(layout.venv)), *options)
    return ProcessSpec("redis", argv, dict(os.environ), Path("/"), log, service=True)


def await_server(socket_file: Path, supervisor: Supervisor, log: Path) -> None:
    """Wait until the server answers PING.

    Raises LauncherError with the end of its log when it does not."""
    for _ in range(int(START_SECONDS / 0.1)):
        if _answers(socket_file):
            return
        if supervisor.deaths() >= 2:
            break
        supervisor.pause()
    raise LauncherError(f"Redis does not start; the end of {log}: {log_tail(log)}")


def _answers(socket_file: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(socket_file))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
