"""Walk the audit chain: exit 0 when it is intact, 1 with the first broken event."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from hub.core.audit.models import HASHED_COLUMNS, AuditEvent
from hub.core.audit.verification import verify


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--export", type=Path, help="also write every event to this file, one JSON line each"
        )
        parser.add_argument("--anchors", type=Path, default=settings.HUB_ANCHOR_FILE, help="the anchor file")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["export"]:
            self._export(options["export"])
        result = verify(options["anchors"])
        if not result.intact:
            first = result.breaks[0]
            self.stderr.write(
                f"BROKEN: chain {first.chain}, event {first.sequence}: {first.problem}"
                f" ({len(result.breaks)} problem(s) in {result.events} events)"
            )
            sys.exit(1)
        self.stdout.write(
            f"intact: {result.events} events in {result.chains} chains, {result.anchors} anchors agree"
        )

    def _export(self, path: Path) -> None:
        columns = [*HASHED_COLUMNS, "hash"]
        with path.open("w") as stream:
            for row in AuditEvent.objects.order_by("id").values(*columns).iterator(chunk_size=5000):
                row["recorded_at"] = row["recorded_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                stream.write(json.dumps(row, default=str) + "\n")
