"""Set-up: one at a time, and begun anew after a break."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hub.launcher.console import LauncherError
from hub.launcher.layout import REPOSITORY, Layout
from hub.launcher.setup import install

HOLD = (
    "import pathlib, sys\n"
    "from hub.launcher.setup import _alone_in\n"
    "with _alone_in(pathlib.Path(sys.argv[1])):\n"
    "    print('alone', flush=True)\n"
    "    sys.stdin.read()\n"
)
# Stands for the virtual environment's Python: notes each call of pip install and ends as the file `status` says.
PYTHON = """#!/bin/sh
case "$*" in
    *--version*) exit 0 ;;
esac
echo "$*" >> {folder}/calls
exit $(cat {folder}/status)
"""


@pytest.fixture
def layout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A checkout whose virtual environment only notes what it is asked, without browser assets."""
    (folder / "requirements.txt").write_text("django==5.2\n")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(folder=folder))
    python.chmod(0o755)
    (folder / ".venv" / "pyvenv.cfg").write_text("version = 3.11\n")
    (folder / "status").write_text("0")
    monkeypatch.setattr("hub.launcher.setup.install_assets", lambda layout: False)
    return Layout(folder, folder / "var", 8000)


def _calls(layout: Layout) -> list[str]:
    return (layout.root / "calls").read_text().splitlines()


def test_packages_are_installed_once(layout: Layout) -> None:
    install(layout)
    install(layout)

    assert len(_calls(layout)) == 1
    assert "--force-reinstall" not in _calls(layout)[0]


def test_an_installation_that_broke_off_is_done_again_from_its_beginning(layout: Layout) -> None:
    (layout.root / "status").write_text("9")
    with pytest.raises(LauncherError, match=r"pip could not install requirements.txt \(exit 9\)"):
        install(layout)
    (layout.root / "status").write_text("0")

    install(layout)
    install(layout)

    assert ["--force-reinstall" in call for call in _calls(layout)] == [False, True]


def test_a_second_set_up_of_a_checkout_waits_for_the_first(folder: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout and first.stdin
        assert first.stdout.readline() == "alone\n"
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as second:
            assert second.stdout
            assert second.stdout.readline() == f"Another command is setting {folder} up; waiting for it ...\n"
            first.stdin.close()
            assert second.stdout.read() == "alone\n"
