#!/usr/bin/env python
"""Django's command line, for the hub that runs from this checkout or the one that HUB_DATABASE_URL names."""

from __future__ import annotations

import os
import sys

from hub.launcher.running_hub import adopt, use_own_python

NOT_POSSIBLE = 2


def main() -> int:
    use_own_python()
    try:
        from django.core.management import execute_from_command_line
        from django.db import OperationalError
    except ImportError:
        return _refuse(f"Django is not installed for {sys.executable}. Run make setup first.")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hub.settings.development")
    adopt(os.environ)
    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:
        if "--traceback" in sys.argv:
            raise
        return _refuse(
            f"the database cannot be used: {str(error).strip()}\nStart the hub (make serve or make demo, with the "
            "same VAR=) and try again, or set HUB_DATABASE_URL."
        )
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"error: {reason}\n")
    return NOT_POSSIBLE


if __name__ == "__main__":
    sys.exit(main())
