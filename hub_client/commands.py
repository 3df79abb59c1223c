"""What each command of `hub-client` does. Each returns the exit status: 0 as wanted, 1 not as wanted."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from getpass import getpass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hub_client import configuration
from hub_client.client import HubClient
from hub_client.documents import FINAL_EXPORT_STATES, Document
from hub_client.folder import FolderUnusable
from hub_client.printing import plain, print_csv, print_outcome, print_table
from hub_client.transport import HubUnreachable
from hub_client.upload import Outcome, StillProcessing, Target, follow, upload_folder
from hub_client.watching import Watch

_POLL_S = 2.0
_DEVIATION_COLUMNS = (
    "id", "site_code", "subject_code", "visit_code", "severity", "state", "label", "expected", "observed", "unit",
    "action",
)  # fmt: skip


def note(text: str) -> None:
    """Tell a person what is going on; results go to standard output, this does not."""
    print(text, file=sys.stderr, flush=True)


def connected(command: Callable[[Namespace, HubClient], int]) -> Callable[[Namespace], int]:
    """Give a command a client of the configured hub, and close it at the end."""

    @wraps(command)
    def with_client(given: Namespace) -> int:
        found = configuration.load()
        with closing(HubClient(found.url, found.token)) as client:
            return command(given, client)

    return with_client


def login(given: Namespace) -> int:
    url = given.url or os.environ.get("HUB_URL", "")
    if not url:
        raise configuration.NotConfigured("Which hub? Use --url, or set HUB_URL.")
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        note("Warning: http is not encrypted; password, token and images can be read on the way. Use https.")
    with closing(HubClient(url)) as client:
        token = client.login(given.username, secret("Password: "), given.otp)
    path = configuration.save(configuration.Configuration(url, token))
    print(f"Logged in to {url} as {given.username}. The token is in {path}, for you alone.")
    return 0


def secret(prompt: str) -> str:
    """Return a password from the terminal, or from standard input where that is none."""
    return getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")


@connected
def upload(given: Namespace, client: HubClient) -> int:
    target = Target(given.trial, given.site, given.subject, given.visit)
    if not given.watch:
        outcome = upload_folder(client, given.folder, target, timeout_s=given.timeout, progress=note)
        return _report(outcome, given.receipt)
    note(f"Watching {given.folder}; Ctrl-C ends it.")
    watch, worst = Watch(given.folder), 0
    try:
        for paths in watch.batches():
            try:
                outcome = upload_folder(
                    client, given.folder, target, paths=paths, timeout_s=given.timeout, progress=note
                )
            except (HubUnreachable, FolderUnusable) as error:
                note(f"{error} Trying again.")
                continue
            watch.sent(paths)
            worst = max(worst, _report(outcome, given.receipt))
    except KeyboardInterrupt:
        note("Stopped watching.")
    return worst


def _report(outcome: Outcome, receipt: Path | None) -> int:
    print_outcome(outcome)
    if outcome.receipt:
        path = receipt or Path(f"receipt-{outcome.submission['id']}.json")
        path.write_text(json.dumps(outcome.receipt, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        print(f"Receipt: {path}")
    return 0 if outcome.ok else 1


@connected
def status(given: Namespace, client: HubClient) -> int:
    if given.submission:
        outcome = follow(client, given.submission, timeout_s=given.timeout, progress=note)
        return _report(outcome, given.receipt)
    rows = client.submissions(client.trial_id(given.trial))
    print_table(
        ("submission", "site", "subject", "visit", "state", "opened"),
        [
            (
                row["id"],
                row["site_code"],
                row["subject_code"],
                row["visit_code"],
                row["state"],
                row["created_at"],
            )
            for row, _ in zip(rows, range(given.limit), strict=False)
        ],
    )
    return 0


@connected
def deviations(given: Namespace, client: HubClient) -> int:
    query = {"state": given.state} if given.state else {}
    rows = client.deviations(client.trial_id(given.trial), **query)
    cells = ([_cell(row.get(name)) for name in _DEVIATION_COLUMNS] for row in rows)
    (print_csv if given.csv else print_table)(_DEVIATION_COLUMNS, cells)
    return 0


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


@connected
def lock(given: Namespace, client: HubClient) -> int:
    """Show the checklist; freeze or lock where that was asked for."""
    trial = client.trial_id(given.trial)
    rows = client.data_locks(trial)
    if not rows and not (given.freeze or given.sign):
        print("The data lock of this trial was not begun; --freeze begins it.")
        return 1
    row: Document = dict(rows[0] if rows else client.open_data_lock(trial))
    if given.freeze and row["state"] == "open":
        row = dict(client.freeze(row["id"]))
    if given.sign and row["state"] != "locked":
        row = client.lock(
            "data-locks", row["id"], password=secret("Password: "), meaning=given.sign, otp=given.otp
        )
    items = client.checklist(row["id"])
    for item in items:
        state = "met" if item["met"] else "NOT MET" if item["blocking"] else "not met (may stay)"
        print(f"{state:<20}{item['title']} {item['detail']}".rstrip())
    manifest = f", manifest {row['manifest_digest']}" if row["manifest_digest"] else ""
    print(f"Data lock {row['id']}: {row['state']}{manifest}")
    met = all(item["met"] for item in items if item["blocking"])
    return 0 if row["state"] == "locked" or met else 1


@connected
def export(given: Namespace, client: HubClient) -> int:
    started = client.start_export(client.trial_id(given.trial), include_images=given.images)
    row = followed(lambda: client.export(started["id"]), FINAL_EXPORT_STATES, given.timeout, "export")
    if row["state"] != "succeeded":
        print(f"Export {row['id']}: {row['state']}. {plain(row['reason'])}")
        return 1
    path = given.output or Path(f"export-{row['id']}.zip")
    digest = client.download_export(row["id"], path)
    if digest != row["package_sha256"]:
        path.unlink()
        print(
            f"What arrived is not the package {row['package_sha256']}; it was deleted. Run the command again."
        )
        return 1
    state = "data locked" if row["locked"] else "NOT LOCKED"
    print(f"Package: {path} ({row['size']:,} bytes, {state}), SHA-256 {digest}")
    print(
        f"Verify it: unzip -p {path} verify_package.py > verify_package.py && python3 verify_package.py {path}"
    )
    return 0


def followed(look: Callable[[], Any], final: frozenset[str], timeout_s: float, noun: str) -> Any:
    """Look every two seconds until the state is final, and return what was seen last. Raises StillProcessing."""
    deadline, before = time.monotonic() + timeout_s, ""
    while (row := look())["state"] not in final:
        now = f"{noun} {row['id']}: {row['state']}, {row['progress']:.0%}"
        if now != before:
            note(now)
        before = now
        if time.monotonic() > deadline:
            raise StillProcessing(
                f"The {noun} {row['id']} has not ended after {timeout_s:.0f} s; it goes on."
            )
        time.sleep(_POLL_S)
    return row
