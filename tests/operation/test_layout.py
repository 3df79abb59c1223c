"""Where the launcher puts things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub.launcher.console import LauncherError
from hub.launcher.layout import (
    POSTGRES_SOCKET_NAME,
    SOCKET_PATH_LIMIT_BYTES,
    Layout,
    short_socket_folder,
)


def test_sockets_stay_in_the_state_folder_while_their_path_fits(folder: Path) -> None:
    assert short_socket_folder(folder) == folder


def test_sockets_move_to_a_short_private_folder_when_their_path_is_too_long(folder: Path) -> None:
    deep = folder / ("é" * 50)
    deep.mkdir()

    short = short_socket_folder(deep)

    try:
        assert short != deep
        assert len(os.fsencode(short / "postgres" / POSTGRES_SOCKET_NAME)) <= SOCKET_PATH_LIMIT_BYTES
        assert short.stat().st_mode & 0o777 == 0o700
        assert short_socket_folder(deep) == short
    finally:
        short.rmdir()


def test_a_socket_path_of_exactly_the_limit_is_kept(folder: Path) -> None:
    rest = SOCKET_PATH_LIMIT_BYTES - len(os.fsencode(folder / "x" / "postgres" / POSTGRES_SOCKET_NAME)) + 1
    longest = folder / ("x" * rest)
    longest.mkdir()

    assert short_socket_folder(longest) == longest


def test_a_state_folder_that_cannot_be_made_is_explained(folder: Path) -> None:
    (folder / "file").write_text("not a folder")

    with pytest.raises(LauncherError, match=r"cannot be written .* VAR="):
        Layout(folder, folder / "file" / "var", 8000).make_folders()


def test_a_full_disk_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.launcher.layout.FREE_SPACE_NEEDED_BYTES", 10**18)

    with pytest.raises(LauncherError, match=r"disk of .* is full: \d+ MB are free .* VAR="):
        Layout(folder, folder / "var", 8000).make_folders()


def test_the_state_of_another_user_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(folder, folder / "var", 8000)
    layout.make_folders()
    monkeypatch.setattr("hub.launcher.layout.os.geteuid", lambda: os.getuid() + 4321)

    with pytest.raises(
        LauncherError, match=r"belongs to user .*, and you are user number \d+\. Start as .* VAR="
    ):
        layout.make_folders()
