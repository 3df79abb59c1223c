"""Verify an export package offline: exit 0 when it is intact, 1 with the first thing that differs."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand

from harmonization_app.offline.verify_package import verify
from hub.core.signatures.keys import public_key


class Command(BaseCommand):
    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("package", type=Path)
        parser.add_argument(
            "--public-key",
            default="",
            help="the key that must have signed it, known from elsewhere (hexadecimal)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        outcome = verify(options["package"], options["public_key"])
        if not outcome.intact:
            self.stderr.write(f"DIFFERS: {outcome.problem}")
            sys.exit(1)
        self.stdout.write(f"intact: {outcome.summary}")
        self.stdout.write(f"signed with the public key {outcome.public_key} ({_whose(outcome.public_key)})")


def _whose(key: str) -> str:
    try:
        ours = public_key()
    except ImproperlyConfigured:
        return "this installation has no key to compare it with"
    return "this hub's" if key == ours else "NOT this hub's: make sure whose it is"
