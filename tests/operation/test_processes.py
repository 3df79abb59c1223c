"""The supervisor, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.launcher import processes
from hub.launcher.processes import ProcessSpec, StopRequested, Supervisor, end_recorded

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
# A parent with a child, both deaf to the terminal: what a worker with its pool looks like.
FAMILY = "import os, time; child = os.fork(); print(os.getpid(), flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FAMILY}"


@pytest.fixture(autouse=True)
def _keep_signal_handlers() -> Iterator[None]:
    """The supervisor installs handlers in this very process; pytest needs its own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def _spec(folder: Path, code: str, name: str = "family", stop_seconds: float = 5.0) -> ProcessSpec:
    log = folder / f"{name}.log"
    return ProcessSpec(
        name, (sys.executable, "-c", code), dict(os.environ), folder, log, stop_seconds=stop_seconds
    )


def _pids(log: Path, at_least: int) -> list[int]:
    _wait_for(lambda: log.exists() and len(log.read_text().split()) >= at_least)
    return [int(word) for word in log.read_text().split()]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_process_is_started_again_without_its_orphans(folder: Path) -> None:
    with Supervisor(folder / "record") as supervisor:
        spec = _spec(folder, FAMILY)
        supervisor.start(spec)
        first = _pids(spec.log, at_least=2)
        # Either of the two may have written first; it is the parent that dies.
        os.kill(next(pid for pid in first if _parent(pid) not in first), signal.SIGKILL)

        deadline = time.monotonic() + PATIENCE_S
        while len(spec.log.read_text().split()) < 4 and time.monotonic() < deadline:
            supervisor.pause()

        second = spec.log.read_text().split()[2:]
        assert len(second) == 2 and not set(map(str, first)) & set(second)
        _wait_for(lambda: not any(_alive(pid) for pid in first))


def test_a_process_that_keeps_dying_is_restarted_more_and_more_slowly(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Supervisor(folder / "record") as supervisor:
        supervisor.start(_spec(folder, "raise SystemExit(3)"))
        while supervisor.deaths() < 3:
            supervisor.pause()

    said = capsys.readouterr().err
    assert "family ended (exit status 3); it starts again in 0.5 s." in said
    assert "it starts again in 1.0 s." in said
    assert "it starts again in 2.0 s." in said


def test_a_process_that_ran_well_for_a_while_is_started_again_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "HEALTHY_AFTER_S", 1.0)
    lives = "import pathlib, time; log = pathlib.Path('lives'); log.open('a').write('x'); "
    third_is_long = "time.sleep(1.5 if len(log.read_text()) == 3 else 0); raise SystemExit(3)"
    with Supervisor(folder / "record") as supervisor:
        supervisor.start(_spec(folder, lives + third_is_long))
        while supervisor.deaths() < 4:
            supervisor.pause()

    delays = [line.split("starts again in ")[1].split()[0] for line in capsys.readouterr().err.splitlines()]
    assert delays == ["0.5", "1.0", "0.5", "1.0"]


def test_a_database_killed_once_a_minute_is_not_kept_waiting() -> None:
    assert processes.HEALTHY_AFTER_S < 60 - processes.LONGEST_RESTART_DELAY_S


def test_leaving_the_block_ends_every_process_and_its_children(folder: Path) -> None:
    spec, deaf = _spec(folder, FAMILY), _spec(folder, DEAF, name="deaf", stop_seconds=0.3)
    with Supervisor(folder / "record") as supervisor:
        supervisor.start(spec)
        supervisor.start(deaf)
        pids = _pids(spec.log, at_least=2) + _pids(deaf.log, at_least=2)
        assert all(_alive(pid) for pid in pids)

    _wait_for(lambda: not any(_alive(pid) for pid in pids))
    assert not (folder / "record").exists()


def test_services_end_after_the_processes_that_use_them(folder: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); print(1, flush=True)\n"
    code += "try: time.sleep(600)\nfinally: open({name!r}, 'w').write(str(time.monotonic()))"
    with Supervisor(folder / "record") as supervisor:
        for name, service in (("database", True), ("queue", True), ("web", False)):
            spec = _spec(folder, code.format(name=name), name=name)
            supervisor.start(ProcessSpec(**(vars(spec) | {"service": service})))
            _pids(spec.log, at_least=1)

    ended = {name: float((folder / name).read_text()) for name in ("web", "queue", "database")}
    assert sorted(ended, key=ended.__getitem__) == ["web", "queue", "database"]


def test_sigterm_ends_the_block(folder: Path) -> None:
    spec = _spec(folder, FAMILY)
    with pytest.raises(StopRequested), Supervisor(folder / "record") as supervisor:
        supervisor.start(spec)
        pids = _pids(spec.log, at_least=2)
        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.watch()

    _wait_for(lambda: not any(_alive(pid) for pid in pids))


def test_nothing_outlives_a_killed_launcher(folder: Path) -> None:
    launcher = (
        "import os, pathlib, sys\n"
        "from hub.launcher.processes import ProcessSpec, Supervisor\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        f"argv = (sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)')\n"
        "with Supervisor(folder / 'record') as supervisor:\n"
        "    supervisor.start(ProcessSpec('child', argv, dict(os.environ), folder, folder / 'child.log'))\n"
        "    supervisor.watch()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT)
    child = _pids(folder / "child.log", at_least=1)[0]

    process.kill()
    process.wait()

    _wait_for(lambda: not _alive(child))


def test_what_an_earlier_launcher_left_is_ended_but_no_stranger_with_its_number(folder: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    try:
        ticks = int(Path(f"/proc/{left.pid}/stat").read_text().rpartition(")")[2].split()[19])
        rows = [
            {"name": "left", "pid": left.pid, "started": ticks, "signal": int(signal.SIGTERM)},
            {
                "name": "stranger",
                "pid": stranger.pid,
                "started": ticks + 10**6,
                "signal": int(signal.SIGTERM),
            },
        ]
        (folder / "record").write_text(json.dumps(rows))

        assert end_recorded(folder / "record") == ["left"]

        assert left.wait(PATIENCE_S) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_a_command_beside_the_processes_gives_back_its_status(folder: Path) -> None:
    with Supervisor(folder / "record") as supervisor:
        assert supervisor.run([sys.executable, "-c", "raise SystemExit(7)"], dict(os.environ), folder) == 7
