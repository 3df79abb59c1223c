"""`make bench` and `make lock`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hub.launcher import setup
from hub.launcher.console import LauncherError, say
from hub.launcher.layout import Layout
from hub.launcher.services import running_services

# One lock for every supported Python: the floor resolves, markers cover the newer ones.
LOCKED_PYTHON = "3.11"
LOCKS = (("requirements.in", "requirements.txt"), ("tests/requirements.in", "tests/requirements.txt"))


def bench(layout: Layout) -> int:
    """Run every benchmark beside private services; return 0 only when all ran and reached their targets.

    Raises LauncherError when there is none."""
    setup.install(layout, with_tests=True)
    scripts = [file for file in sorted((layout.root / "benchmarks").glob("*.py")) if _has_main(file)]
    if not scripts:
        raise LauncherError(f"There is no benchmark in {layout.root / 'benchmarks'}.")
    failed = []
    with running_services(replace(layout, var=layout.var / "bench")) as services:
        for script in scripts:
            say(f"== {script.name}")
            command = [str(layout.python), str(script), *_arguments(script.name, layout)]
            if services.supervisor.run(command, services.environment, layout.root) != 0:
                failed.append(script.name)
    if failed:
        say(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def lock(layout: Layout) -> None:
    """Resolve requirements.in and tests/requirements.in again with uv, from a throwaway environment.

    A version stays as it is while the requirements allow it.

    Raises LauncherError when uv fails."""
    with tempfile.TemporaryDirectory(prefix="hub-lock-") as folder:
        python = Path(folder) / "bin" / "python"
        _require(subprocess.run([sys.executable, "-m", "venv", folder], check=False), "make an environment")
        _require(subprocess.run([python, "-m", "pip", "install", "-q", "uv"], check=False), "install uv")
        for source, target in LOCKS:
            command = [
                str(python),
                "-m",
                "uv",
                "pip",
                "compile",
                "--universal",
                "--python-version",
                LOCKED_PYTHON,
            ]
            options = ["--custom-compile-command", "make lock", "--quiet", source, "-o", target]
            _require(subprocess.run([*command, *options], cwd=layout.root, check=False), f"resolve {source}")
            say(f"Wrote {target}.")


def _arguments(script: str, layout: Layout) -> tuple[str, ...]:
    """Return what a benchmark is told: one of the whole hub to start its own, one of large files where they go."""
    known = {
        "ingest.py": ("--serve",),
        "harmonization.py": ("--folder", str(layout.var / "bench" / "harmonization")),
    }
    return known.get(script, ())


def _has_main(file: Path) -> bool:
    return '__name__ == "__main__"' in file.read_text(encoding="utf-8")


def _require(answer: subprocess.CompletedProcess[bytes], deed: str) -> None:
    if answer.returncode != 0:
        raise LauncherError(f"The lock could not be made: failed to {deed}. The reason is above.")
