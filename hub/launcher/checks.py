"""`make test`: every check and test, with private services of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hub.launcher import setup, system_packages
from hub.launcher.console import say
from hub.launcher.layout import Layout
from hub.launcher.services import running_services

LINTED = ("hub", "sites_app", "qc_app", "harmonization_app", "hub_client", "tests", "benchmarks", "manage.py")
_MOST_PROCESSES = 4
TYPED = ("hub", "sites_app", "qc_app", "harmonization_app", "hub_client")


def run_all(layout: Layout, pytest_arguments: Sequence[str]) -> int:
    """Run every check, then every test; return 0 only when all passed, and name those that failed.

    Raises LauncherError when something needed cannot be installed."""
    setup.install(layout, with_tests=True)
    system_packages.require_for_tests(layout)
    own = replace(layout, var=layout.var / "test")
    failed: list[str] = []
    with running_services(own, throwaway=True) as services:
        environment = services.environment | {
            "DJANGO_SETTINGS_MODULE": "hub.settings.test",
            "HUB_TEST_ROOT": str(own.var / "files"),
        }
        for name, command in _commands(layout, pytest_arguments).items():
            say(f"== {name}")
            if services.supervisor.run(command, environment, layout.root) != 0:
                failed.append(name)
    say(f"FAILED: {', '.join(failed)}" if failed else "All checks and tests passed.")
    return 1 if failed else 0


def _commands(layout: Layout, pytest_arguments: Sequence[str]) -> dict[str, list[str]]:
    python, programs = str(layout.python), layout.venv / "bin"
    linted = _present(layout.root, LINTED)
    commands = {
        "ruff check": [python, "-m", "ruff", "check", *linted],
        "ruff format": [python, "-m", "ruff", "format", "--check", *linted],
        "mypy": [python, "-m", "mypy", *_present(layout.root, TYPED)],
        "import-linter": [str(programs / "lint-imports")],
        "djlint": [python, "-m", "djlint", "templates", "--lint", "--quiet"],
        "hadolint": [str(programs / "hadolint"), "Dockerfile"],
        "migrations": [python, "manage.py", "makemigrations", "--check", "--dry-run"],
        "pytest": [python, "-m", "pytest", *_side_by_side(), *(pytest_arguments or ("-m", "not faults"))],
    }
    if not pytest_arguments:
        # They measure how long a whole hub takes to recover: nothing runs beside them.
        commands["pytest of faults"] = [python, "-m", "pytest", "-m", "faults"]
    if not any((layout.root / "templates").rglob("*.html")):
        del commands["djlint"]
    return commands


def _side_by_side() -> list[str]:
    """Return pytest's options to use every core; the tests of one file stay together."""
    return ["-n", str(min(os.cpu_count() or 1, _MOST_PROCESSES)), "--dist", "loadfile"]


def _present(root: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if (root / name).exists()]
