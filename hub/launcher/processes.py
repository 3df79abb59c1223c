"""Starts, watches, restarts and ends the hub's processes, leaving none behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from hub.launcher.console import LauncherError, say, warn

POLL_S = 0.1
FIRST_RESTART_DELAY_S = 0.5
LONGEST_RESTART_DELAY_S = 30.0
# A process that lived this long was healthy: its next restart starts again from the shortest delay. A database
# killed once a minute must not be kept waiting, and one start in 15 s costs little even where it never succeeds.
HEALTHY_AFTER_S = 15.0
LOG_LIMIT_BYTES = 20_000_000


class StopRequested(BaseException):
    """Ctrl-C or SIGTERM arrived; not an Exception, so no handler of ordinary errors swallows it."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep alive. Services end only after all others, in reverse order of their start."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    log: Path
    service: bool = False
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 15.0


@dataclass
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0
    deaths_in_a_row: int = 0
    restart_at: float | None = None


@dataclass
class Supervisor:
    """Keeps processes alive inside a `with` block and ends them all when the block is left."""

    record: Path
    children: list[_Child] = field(default_factory=list)
    stop_signals: int = 0

    def __enter__(self) -> Supervisor:
        end_recorded(self.record)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signals += 1

    def start(self, spec: ProcessSpec) -> None:
        """Start one process and keep it alive from now on."""
        self.children.append(_Child(spec, spawn(spec), time.monotonic()))
        self._write_record()

    def pause(self, seconds: float = POLL_S) -> None:
        """Sleep, then restart what has died.

        Raises StopRequested after Ctrl-C or SIGTERM."""
        time.sleep(seconds)
        if self.stop_signals:
            raise StopRequested
        for child in self.children:
            self._revive(child)

    def watch(self) -> None:
        """Keep everything alive until Ctrl-C or SIGTERM."""
        while True:
            self.pause()

    def run(self, argv: Sequence[str | Path], environment: dict[str, str], folder: Path) -> int:
        """Run one command to its end while the other processes are watched; return its exit status."""
        process = subprocess.Popen(guarded(argv), env=environment, cwd=folder, start_new_session=True)
        try:
            while process.poll() is None:
                self.pause()
        finally:
            if process.poll() is None:
                _signal(process, signal.SIGTERM)
                _await_exit(process, 10.0)
            _kill_group(process.pid)
        return process.returncode

    def deaths(self) -> int:
        """Return the largest number of deaths of one process since it was started."""
        return max((child.deaths for child in self.children), default=0)

    def stop_all(self) -> None:
        """End the hub's processes together, then the services one by one; kill what lingers."""
        before = self.stop_signals
        others = [child for child in self.children if not child.spec.service]
        services = [child for child in reversed(self.children) if child.spec.service]
        for group in [others, *([service] for service in services)]:
            for child in group:
                _signal(child.process, child.spec.stop_signal)
            for child in group:
                self._await_or_kill(child, before)
        self.children.clear()
        self.record.unlink(missing_ok=True)

    def _await_or_kill(self, child: _Child, signals_before: int) -> None:
        deadline = time.monotonic() + child.spec.stop_seconds
        while child.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            # A second Ctrl-C means now; a database is still given its time, because a kill costs a recovery.
            if self.stop_signals > signals_before and not child.spec.service:
                break
        _kill_group(child.process.pid)
        child.process.wait()

    def _revive(self, child: _Child) -> None:
        if child.process.poll() is None:
            return
        now = time.monotonic()
        if child.restart_at is None:
            _kill_group(child.process.pid)
            child.deaths += 1
            child.deaths_in_a_row = 1 if now - child.started > HEALTHY_AFTER_S else child.deaths_in_a_row + 1
            delay = min(FIRST_RESTART_DELAY_S * 2 ** (child.deaths_in_a_row - 1), LONGEST_RESTART_DELAY_S)
            child.restart_at = now + delay
            ending = _describe_exit(child.process.returncode)
            warn(
                f"{child.spec.name} ended ({ending}); it starts again in {delay:.1f} s. "
                f"Its log: {child.spec.log}"
            )
        elif now >= child.restart_at:
            child.process, child.started, child.restart_at = spawn(child.spec), now, None
            self._write_record()

    def _write_record(self) -> None:
        rows = [
            {
                "name": c.spec.name,
                "pid": c.process.pid,
                "started": _start_ticks(c.process.pid),
                "signal": c.spec.stop_signal,
            }
            for c in self.children
        ]
        partial = self.record.with_name(f"{self.record.name}.part")
        partial.write_text(json.dumps(rows), encoding="utf-8")
        partial.replace(self.record)


def guarded(argv: Sequence[str | Path]) -> list[str]:
    """Return `argv`, wrapped so that the kernel signals the process when the launcher dies.

    Source: prctl(2), PR_SET_PDEATHSIG."""
    words = [str(word) for word in argv]
    if words[0].endswith("/setpriv"):
        return words
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *words] if setpriv else words


def spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    """Start the process in a process group of its own, its output appended to its log.

    Raises LauncherError when it cannot be started."""
    try:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        if spec.log.exists() and spec.log.stat().st_size > LOG_LIMIT_BYTES:
            spec.log.replace(spec.log.with_name(f"{spec.log.name}.1"))
        with spec.log.open("ab") as log:
            return subprocess.Popen(
                guarded(spec.argv),
                env=spec.environment,
                cwd=spec.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise LauncherError(f"{spec.name} could not be started: {error}.") from error


def end_recorded(record: Path) -> list[str]:
    """End the processes that a killed launcher left behind; return their names.

    A process number is trusted only with the start time recorded beside it."""
    if not record.exists():
        return []
    try:
        rows = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        rows = []
    left = [row for row in rows if row["started"] and _start_ticks(row["pid"]) == row["started"]]
    for row in left:
        os.kill(row["pid"], row["signal"])
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and any(_start_ticks(row["pid"]) == row["started"] for row in left):
        time.sleep(POLL_S)
    for row in left:
        _kill_group(row["pid"])
    record.unlink(missing_ok=True)
    if left:
        say(f"Ended what an earlier start left behind: {', '.join(row['name'] for row in left)}.")
    return [row["name"] for row in left]


def _start_ticks(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot, None if it is gone or a zombie.

    Source: proc(5), field 22 of stat."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _await_exit(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        process.wait()


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _describe_exit(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
