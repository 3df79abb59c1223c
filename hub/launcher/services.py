"""The private services of one VAR: started for a block of work, by one launcher at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hub.launcher import postgres, redis
from hub.launcher.console import LauncherError, say
from hub.launcher.environment import hub_environment
from hub.launcher.layout import Layout, short_socket_folder
from hub.launcher.processes import Supervisor, end_recorded
from hub.launcher.running_hub import announce, withdraw

STOP_SECONDS = 90.0


@dataclass(frozen=True)
class Services:
    """Running PostgreSQL and Redis, and the environment that reaches them."""

    supervisor: Supervisor
    environment: dict[str, str]


@contextmanager
def running_services(layout: Layout, throwaway: bool = False) -> Iterator[Services]:
    """Start PostgreSQL and Redis of this VAR, give the environment that reaches them, end them afterwards.

    Raises LauncherError when this VAR is in use already."""
    layout.make_folders()
    with _sole_user(layout):
        # Root's PostgreSQL runs as another user, who must be able to pass through to its own folder.
        layout.run.chmod(0o711 if os.geteuid() == 0 else 0o700)
        sockets = short_socket_folder(layout.run)
        sockets.chmod(0o711 if os.geteuid() == 0 else 0o700)
        try:
            with Supervisor(layout.run / "processes.json") as supervisor:
                running = _start(layout, sockets, supervisor, throwaway)
                announce(layout, running.environment)
                yield running
        finally:
            withdraw(layout)
            if sockets != layout.run:
                shutil.rmtree(sockets, ignore_errors=True)


def _start(layout: Layout, sockets: Path, supervisor: Supervisor, throwaway: bool) -> Services:
    database_log, queue_log = layout.logs / "postgres.log", layout.logs / "redis.log"
    cluster = postgres.open_cluster(layout, sockets / "postgres")
    supervisor.start(postgres.server(cluster, database_log, throwaway))
    supervisor.start(redis.server(layout, sockets / "redis.sock", queue_log))
    postgres.await_server(cluster, supervisor, database_log)
    postgres.ensure_database(cluster)
    redis.await_server(sockets / "redis.sock", supervisor, queue_log)
    return Services(supervisor, hub_environment(layout, sockets))


def require_unused(layout: Layout) -> None:
    """Raise LauncherError when a launcher uses this VAR now; nothing is made or taken."""
    lock = layout.run / "launcher.lock"
    if os.access(lock, os.R_OK):
        with lock.open(encoding="ascii") as stream:
            if not _try_lock(stream.fileno()):
                raise _in_use(layout, stream)


def stop(layout: Layout) -> None:
    """End the launcher that uses this VAR, or what a killed one left behind.

    Raises LauncherError when it does not end."""
    lock = layout.run / "launcher.lock"
    if not lock.exists():
        say("Nothing was running.")
        return
    layout.require_own()
    with lock.open("r+", encoding="ascii") as stream:
        if _try_lock(stream.fileno()):
            if not end_recorded(layout.run / "processes.json"):
                say("Nothing was running.")
            return
        holder = int(stream.read().split()[0])
        os.kill(holder, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while not _try_lock(stream.fileno()):
            if time.monotonic() > deadline:
                raise LauncherError(f"Process {holder} does not end; its logs are in {layout.logs}.")
            time.sleep(0.1)
    say("Stopped.")


@contextmanager
def _sole_user(layout: Layout) -> Iterator[None]:
    with (layout.run / "launcher.lock").open("a+", encoding="ascii") as stream:
        if not _try_lock(stream.fileno()):
            stream.seek(0)
            raise _in_use(layout, stream)
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield


def _in_use(layout: Layout, lock: TextIO) -> LauncherError:
    holder = lock.read().strip() or "unknown"
    return LauncherError(
        f"A hub already uses {layout.var} (process {holder}). End it with make stop, or name another "
        "folder with VAR= and another port with PORT=."
    )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
