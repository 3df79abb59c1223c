"""What `manage.py` needs to work beside a hub that `make serve` or `make demo` runs: that hub's environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

from hub.launcher.environment import write_private
from hub.launcher.layout import REPOSITORY, Layout

ADDRESS = "HUB_DATABASE_URL"
# The schema's owner could switch the guards off: a command gets the rights of the hub itself.
_KEPT_BACK = "HUB_OWNER_DATABASE_URL"


def announce(layout: Layout, environment: dict[str, str]) -> None:
    """Write down how to reach the running hub, readable by its owner alone."""
    ours = {name: value for name, value in environment.items() if name.startswith("HUB_")}
    ours.pop(_KEPT_BACK, None)
    write_private(_file(layout.var), json.dumps(ours))


def withdraw(layout: Layout) -> None:
    """Forget the hub that was announced; one whose launcher was killed stays written down until the next start."""
    _file(layout.var).unlink(missing_ok=True)


def adopt(environment: MutableMapping[str, str]) -> None:
    """Add the environment of the hub that runs from this VAR, unless the caller names a database already."""
    if environment.get(ADDRESS):
        return
    var = Path(environment.get("VAR") or REPOSITORY / "var").expanduser()
    try:
        found = json.loads(_file(var).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for name, value in found.items():
        environment.setdefault(name, value)


def use_own_python() -> None:
    """Start over with the Python of the virtual environment where this one has no Django.

    Returns where there is nothing to change to."""
    own = REPOSITORY / ".venv" / "bin" / "python"
    if find_spec("django") is None and own.exists() and Path(sys.prefix) != own.parents[1]:
        os.execv(own, [str(own), *sys.argv])


def _file(var: Path) -> Path:
    return var / "run" / "environment.json"
