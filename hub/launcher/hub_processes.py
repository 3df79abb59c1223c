"""The processes of the hub itself: web, workers and the scheduler."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.launcher.console import LauncherError
from hub.launcher.layout import Layout
from hub.launcher.postgres import log_tail
from hub.launcher.processes import ProcessSpec, Supervisor

READY_SECONDS = 180.0
WEB_PROCESSES = 2
_DEATHS_BEFORE_GIVING_UP = 3


@dataclass(frozen=True)
class Worker:
    """One Celery worker: the queues it serves and how many tasks it runs at a time."""

    name: str
    queues: str
    concurrency: int


WORKERS = (
    Worker("ingest", "ingest,control", 2),
    Worker("check", "check", 2),
    Worker("harmonize", "harmonize", 1),
)


def hub_processes(layout: Layout, environment: dict[str, str]) -> list[ProcessSpec]:
    """Return the web server, the workers of each queue and the scheduler, in order of their start."""
    commands: dict[str, Sequence[str]] = {"web": _web_command(layout)}
    commands |= {f"worker-{worker.name}": _worker_command(worker) for worker in WORKERS}
    schedule = environment["HUB_BEAT_SCHEDULE_FILE"]
    commands["beat"] = (
        "celery",
        "-A",
        "hub.celery",
        "beat",
        "--schedule",
        schedule,
        "--pidfile=",
        "--loglevel=INFO",
    )
    # The schema's owner could switch the guards off: what serves requests and runs jobs is not told its address.
    own = {name: value for name, value in environment.items() if name != "HUB_OWNER_DATABASE_URL"}
    return [
        ProcessSpec(name, (str(layout.python), "-m", *words), own, layout.root, layout.logs / f"{name}.log")
        for name, words in commands.items()
    ]


def await_ready(layout: Layout, supervisor: Supervisor) -> None:
    """Wait until /health/ready answers 200.

    Raises LauncherError with what is not ready and the end of a log when it does not."""
    answer = ""
    for _ in range(int(READY_SECONDS / 0.1)):
        status, answer = _health(layout.port)
        if status == 200:
            return
        if supervisor.deaths() >= _DEATHS_BEFORE_GIVING_UP:
            break
        supervisor.pause()
    failing = max(supervisor.children, key=lambda child: child.deaths).spec
    raise LauncherError(
        f"The hub does not become ready ({answer or 'no answer'}). The end of "
        f"{failing.log}: {log_tail(failing.log)}"
    )


def _web_command(layout: Layout) -> tuple[str, ...]:
    return (
        "gunicorn",
        "hub.asgi:application",
        "--worker-class=uvicorn.workers.UvicornWorker",
        f"--workers={WEB_PROCESSES}",
        "--preload",
        f"--bind=127.0.0.1:{layout.port}",
        "--graceful-timeout=10",
        "--timeout=60",
        "--keep-alive=30",
        f"--worker-tmp-dir={_memory_folder()}",
    )


def _worker_command(worker: Worker) -> tuple[str, ...]:
    return (
        "celery",
        "-A",
        "hub.celery",
        "worker",
        f"--hostname={worker.name}@%h",
        f"--queues={worker.queues}",
        f"--concurrency={worker.concurrency}",
        "--prefetch-multiplier=1",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=INFO",
    )


def _memory_folder() -> Path:
    """Return where gunicorn keeps its heartbeat files: in memory, since a slow disk stalls the heartbeat."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path("/tmp")


def _health(port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        return response.status, response.read(2000).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
