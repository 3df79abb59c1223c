"""`python3 -m hub.launcher COMMAND`: refuses an unsuitable Python before it imports anything newer."""

from __future__ import annotations

import sys

MINIMUM_PYTHON = (3, 11)


def main() -> int:
    """Run the command line and return its exit status."""
    if sys.version_info < MINIMUM_PYTHON:
        found = ".".join(str(part) for part in sys.version_info[:3])
        sys.stderr.write(
            f"error: the hub needs Python 3.11 or newer, and {sys.executable} is Python {found}. Install a "
            "newer one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv) and name it: "
            "make PYTHON=python3.11 COMMAND.\n"
        )
        return 1
    from hub.launcher.commands import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
