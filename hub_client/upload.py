"""A folder sent to the hub as one submission, and what became of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub_client.client import HubClient
from hub_client.documents import (
    FINAL_SERIES_STATES,
    FINAL_STATES,
    Document,
    SeriesVerdicts,
    Submission,
    SubmissionFile,
)
from hub_client.folder import FolderUnusable, LocalFile, archive_of, batches, files_in, read_file
from hub_client.transport import HubRequestFailed

NOT_ACCEPTED = ("rejected", "quarantined", "ignored")
_MOST_ANNOUNCED = 50_000
"""A longer manifest would be a larger request than the hub takes."""

_FIRST_POLL_S = 0.5
_LONGEST_POLL_S = 5.0
_MOST_ATTEMPTS = 100

Progress = Callable[[str], None]


class StillProcessing(Exception):
    """The hub has everything, but did not finish in the time given; the message says how to look again."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a folder belongs; each an id or a code."""

    trial: str
    site: str
    subject: str
    visit: str


@dataclass(frozen=True)
class Outcome:
    """What became of a submission: files that were not accepted, the judgement of each series, the receipt."""

    submission: Submission
    sent: int
    files: list[SubmissionFile] = field(default_factory=list)
    series: list[tuple[str, SeriesVerdicts]] = field(default_factory=list)
    receipt: Document = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all files arrived and were accepted (or were there already) and every verdict is compliant."""
        refused = [file for file in self.files if file["outcome"] != "ignored"]
        judged = all(
            verdicts["state"] == "checked" and verdicts["outcome"] == "compliant"
            for _, verdicts in self.series
        )
        return self.submission["state"] == "accepted" and not refused and judged and not self.missing


def upload_folder(
    client: HubClient,
    folder: Path,
    target: Target,
    *,
    paths: Sequence[Path] | None = None,
    timeout_s: float = 1800.0,
    progress: Progress = lambda text: None,
) -> Outcome:
    """Send a folder (or only `paths` in it) and wait for the verdicts; the same call again sends nothing twice.

    Raises FolderUnusable, HubRequestFailed, HubUnreachable, StillProcessing.
    """
    found = files_in(folder) if paths is None else list(paths)
    if not found:
        raise FolderUnusable(f"There is no file in {folder}; nothing was sent.")
    progress(f"Reading {len(found)} files ...")
    files = [read_file(path, folder) for path in found]
    submission = _open(client, target, files)
    if submission["state"] == "open":
        _send(client, submission["id"], files, progress)
    else:
        progress(f"The same files were sent before: submission {submission['id']}.")
    return follow(client, submission["id"], files=files, timeout_s=timeout_s, progress=progress)


def _open(client: HubClient, target: Target, files: Sequence[LocalFile]) -> Submission:
    """Open the submission of just these files, or find it again; one that was given up is not used again."""
    entries = [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in files]
    places = [target.trial, target.site, target.subject, target.visit]
    identity = hashlib.sha256(json.dumps([places, entries], sort_keys=True).encode()).hexdigest()[:48]
    for attempt in range(_MOST_ATTEMPTS):
        opened = client.open_submission(
            trial=target.trial,
            site=target.site,
            subject=target.subject,
            visit=target.visit,
            form={},
            key=f"hub-client-{identity}-{attempt}",
            manifest=entries if len(entries) <= _MOST_ANNOUNCED else (),
        )
        now = client.submission(opened["id"])
        if now["state"] not in ("cancelled", "failed"):
            return now
    raise FolderUnusable(
        f"These files were given up {_MOST_ATTEMPTS} times. Ask the hub's administrator why."
    )


def _send(client: HubClient, submission: str, files: Sequence[LocalFile], progress: Progress) -> None:
    total, sent = sum(file.size for file in files), 0
    for batch in batches(files):
        client.send_archive(submission, archive_of(batch))
        sent += sum(file.size for file in batch)
        progress(f"Sent {sent / 1e6:,.1f} of {total / 1e6:,.1f} MB")
    try:
        client.complete(submission)
    except HubRequestFailed as error:
        # The answer to an earlier request may have been lost: then the submission is complete already.
        if error.status != 409 or client.submission(submission)["state"] == "open":
            raise


def follow(
    client: HubClient,
    submission: str,
    *,
    files: Sequence[LocalFile] = (),
    timeout_s: float = 1800.0,
    progress: Progress = lambda text: None,
) -> Outcome:
    """Wait until a submission and its series are in a final state and return what became of them.

    Raises HubRequestFailed, HubUnreachable, StillProcessing.
    """
    deadline = time.monotonic() + timeout_s
    progress("Waiting for the hub ...")
    final: Submission = _until(
        lambda: client.submission(submission), lambda row: row["state"] in FINAL_STATES, deadline, submission
    )
    series = _until(
        lambda: list(client.series(submission=submission)),
        lambda rows: all(row["state"] in FINAL_SERIES_STATES for row in rows),
        deadline,
        submission,
    )
    receipt = client.receipt(submission) if final["receipt"] else {}
    listed = {item["sha256"] for item in receipt.get("receipt", {}).get("files", [])}
    return Outcome(
        submission=final,
        sent=len(files),
        files=[row for outcome in NOT_ACCEPTED for row in client.submission_files(submission, outcome)],
        series=[(row["description"] or row["id"], client.series_verdicts(row["id"])) for row in series],
        receipt=receipt,
        missing=tuple(file.name for file in files if file.sha256 not in listed),
    )


def _until(look: Callable[[], Any], done: Callable[[Any], bool], deadline: float, submission: str) -> Any:
    pause = _FIRST_POLL_S
    while True:
        found = look()
        if done(found):
            return found
        if time.monotonic() > deadline:
            raise StillProcessing(
                f"Everything was sent, but the hub is still at work on submission {submission}."
                f" Look again with: hub-client status {submission}"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL_S)
