"""Create or update a trial from one YAML or JSON file: all of it, or nothing with every fault named."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from hub.core.errors import HubError
from sites_app.services.trial_file import apply_trial


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="print the difference and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        try:
            content = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path} cannot be read: {type(error).__name__}.") from error
        try:
            _, changes = apply_trial(actor=None, content=content, name=path.name, dry_run=options["dry_run"])
        except HubError as error:
            lines = [
                f"{fault['file']}:{fault['line']}: {fault['field']}: {fault['message']}"
                for fault in error.errors
                if "line" in fault
            ]
            raise CommandError("\n".join([error.detail, *lines])) from error
        for change in changes if options["verbosity"] > 0 else ():
            self.stdout.write(f"{change.kind}: {change.what}")
        verb = "would change" if options["dry_run"] else "changed"
        self.stdout.write(
            f"{len(changes)} thing(s) {verb}." if changes else "The hub agrees with the file already."
        )
