"""Everything between a fresh checkout and a hub that can start; each step is skipped when nothing changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.launcher.assets import install_assets
from hub.launcher.console import LauncherError, Progress, say
from hub.launcher.layout import Layout
from hub.launcher.processes import guarded

FREE_SPACE_NEEDED_BYTES = 3 * 1024**3


def install(layout: Layout, with_tests: bool = False) -> None:
    """Make the virtual environment and the browser assets what the lock files say.

    Raises LauncherError naming the step that failed and its remedy."""
    lists = [layout.root / "requirements.txt"]
    if with_tests:
        lists.append(layout.root / "tests" / "requirements.txt")
    with _alone_in(layout.root):
        _make_venv(layout)
        for requirements in lists:
            _install_packages(layout, requirements)
        install_assets(layout)


def fingerprint(files: Iterable[Path], *extra: str) -> str:
    """Return a SHA-256 over the names and contents of `files` and over `extra`."""
    digest = hashlib.sha256("\n".join(extra).encode())
    for file in sorted(files):
        digest.update(b"\0" + str(file).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def is_current(stamp: Path, wanted: str) -> bool:
    """Return whether the step that `stamp` stands for was done for this fingerprint."""
    return stamp.exists() and stamp.read_text(encoding="utf-8") == wanted


def set_stamp(stamp: Path, wanted: str) -> None:
    """Remember that a step was done for this fingerprint."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(wanted, encoding="utf-8")


@contextmanager
def _alone_in(checkout: Path) -> Iterator[None]:
    """Let one launcher at a time set a checkout up; the kernel frees the lock however its holder ends."""
    descriptor = os.open(checkout, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another command is setting {checkout} up; waiting for it ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_venv(layout: Layout) -> None:
    if _works(layout.python):
        return
    _require_free_space(layout.root)
    say(f"Virtual environment in {layout.venv} ...")
    command = [sys.executable, "-m", "venv", "--clear", str(layout.venv)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        shutil.rmtree(layout.venv, ignore_errors=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise LauncherError(
            f"Python could not make a virtual environment: {(answer.stdout + answer.stderr).strip()[-400:]} "
            f"On Debian and Ubuntu its module is a package of its own: apt-get install python{version}-venv."
        )


def _works(python: Path) -> bool:
    try:
        return (
            subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode
            == 0
        )
    except OSError:
        return False


def _made_by(venv: Path) -> str:
    """Return what tells one virtual environment from another: which Python made it."""
    return (venv / "pyvenv.cfg").read_text(encoding="utf-8")


def _require_free_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < FREE_SPACE_NEEDED_BYTES:
        raise LauncherError(
            f"The first set-up needs {FREE_SPACE_NEEDED_BYTES / 1e9:.1f} GB and {folder} has "
            f"{free / 1e9:.1f} GB free. Free space, or put the checkout on another disk."
        )


def _install_packages(layout: Layout, requirements: Path) -> None:
    stamp = layout.venv / "stamps" / requirements.relative_to(layout.root).as_posix().replace("/", "-")
    wanted = fingerprint([], requirements.read_text(encoding="utf-8"), _made_by(layout.venv))
    if is_current(stamp, wanted):
        return
    lines = requirements.read_text(encoding="utf-8").splitlines()
    total = sum(1 for line in lines if line and not line[0].isspace() and not line.startswith(("#", "-")))
    say(f"Python packages of {requirements.relative_to(layout.root)}; the first time takes minutes ...")
    begun = stamp.with_name(f"{stamp.name}.begun")
    # A package of which pip had written a part when it was killed looks installed to the next pip.
    again = ["--force-reinstall"] if begun.exists() else []
    set_stamp(begun, wanted)
    _run_pip(layout, requirements, again, Progress("packages", total))
    set_stamp(stamp, wanted)
    begun.unlink()


def _run_pip(layout: Layout, requirements: Path, more_options: list[str], progress: Progress) -> None:
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", *more_options]
    command = [str(layout.python), "-m", "pip", "install", *options, "-r", str(requirements)]
    said: list[str] = []
    with subprocess.Popen(
        guarded(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        try:
            for line in pip.stdout or ():
                said.append(line)
                if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                    progress.advance(line.split(": ")[-1].removeprefix("Collecting ").split()[0])
        except BaseException:
            pip.terminate()
            raise
    progress.finish()
    if pip.returncode != 0:
        reason = "".join(said)[-900:].strip()
        raise LauncherError(
            f"pip could not install {requirements.name} (exit {pip.returncode}): {reason}\n"
            "Check the network, the package index and the free disk space, then start again."
        )
