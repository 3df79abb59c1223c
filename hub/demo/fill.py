"""Fills a hub with the demonstration trial through its public API, and compares what it found with what was planted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hub.demo.client import FINAL_STATES, Document, HubClient
from hub.demo.comparison import Comparison, compare
from hub.demo.harmonize import Harmonized, harmonize
from hub.demo.plan import Submission, real_submissions, simulated_submissions, uploads
from hub.demo.trial import TRIAL_CODE, coordinator_of

CLIENTS = 4
POLL_S = 1.0
SAY_EVERY_S = 10.0
WAIT_S = 600.0
LOCKED_FIRST = ("protocols", "qc-profiles")
LOCK_MEANING = "I approve this version for the demonstration trial."

Progress = Callable[[str], None]


class FillFailed(Exception):
    """The demonstration could not be filled; the message says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in: the demonstration's users share one password."""

    password: str
    administrator: str = "trial-admin"
    second_administrator: str = "trial-admin-2"
    statistician: str = "statistician"


@dataclass(slots=True)
class Summary:
    """What was sent, how long it took, and the comparison with the manifest."""

    submissions: int = 0
    skipped: int = 0
    files: int = 0
    bytes_sent: int = 0
    upload_s: float = 0.0
    ready_s: float = 0.0
    comparison: Comparison | None = None
    harmonized: Harmonized | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.comparison and self.comparison.ok and self.harmonized and self.harmonized.ok)


def fill(base_url: str, credentials: Credentials, progress: Progress = print) -> Summary:
    """Send every submission of the demonstration, harmonize, and compare; what is there already is left alone.

    Raises FillFailed where the trial is missing or work does not end in time, HubRequestFailed where the hub refuses a
    request.
    """
    admin = HubClient(base_url)
    admin.login(credentials.administrator, credentials.password)
    trial = _trial(admin)
    for kind in LOCKED_FIRST:
        progress(_lock_draft(admin, kind, trial, credentials.password))
    summary = Summary()
    started = time.monotonic()
    _send_all(base_url, credentials, trial, _before(admin, trial), summary, progress)
    summary.upload_s = time.monotonic() - started
    progress(
        f"Uploaded {summary.files} files ({summary.bytes_sent / 1e6:.0f} MB) in {summary.upload_s:.1f} s;"
        f" {summary.skipped} submissions were there already."
    )
    _wait_until_judged(admin, trial, progress)
    summary.ready_s = time.monotonic() - started
    progress(f"All series are checked after {summary.ready_s:.1f} s.")
    summary.harmonized = harmonize(
        base_url,
        admin,
        trial,
        credentials.password,
        statistician=credentials.statistician,
        second_administrator=credentials.second_administrator,
        progress=progress,
    )
    summary.comparison = compare(admin, trial)
    for line in summary.comparison.lines():
        progress(line)
    admin.close()
    return summary


def _trial(client: HubClient) -> str:
    try:
        return client.trial_id(TRIAL_CODE)
    except LookupError as error:
        raise FillFailed(
            f"The hub has no trial {TRIAL_CODE}. Apply it first: python -m hub.demo.trial > demo.json, then"
            " python manage.py apply_trial demo.json."
        ) from error


def _lock_draft(client: HubClient, kind: str, trial: str, password: str) -> str:
    versions = client.versions(kind, trial)
    if any(version["state"] == "locked" for version in versions):
        return f"{kind}: a version is locked already."
    drafts = [version for version in versions if version["state"] == "draft"]
    if not drafts:
        raise FillFailed(
            f"The trial has no draft among its {kind}. Apply the demonstration's trial file again."
        )
    client.lock(kind, drafts[0]["id"], password=password, meaning=LOCK_MEANING)
    return f"{kind}: locked."


@dataclass(frozen=True, slots=True)
class _Before:
    """What the hub holds already: keys of completed submissions, and how often one of a key was given up."""

    sent: frozenset[str]
    given_up: Counter[str]


def _before(client: HubClient, trial: str) -> _Before:
    """Look which visits have a completed submission; failed and cancelled ones are sent anew."""
    sent: set[str] = set()
    given_up: Counter[str] = Counter()
    for row in client.submissions(trial):
        key = f"{row['subject_code']}/{row['visit_code']}"
        if row["state"] in ("failed", "cancelled"):
            given_up[key] += 1
        elif row["state"] != "open":
            sent.add(key)
    return _Before(frozenset(sent), given_up)


def _send_all(
    base_url: str,
    credentials: Credentials,
    trial: str,
    before: _Before,
    summary: Summary,
    progress: Progress,
) -> None:
    """Send by site, each site's visits in order, so that a scanner's images arrive in the order of acquisition."""
    by_site: dict[str, list[Submission]] = {}
    for submission in (*real_submissions(), *simulated_submissions()):
        if submission.key in before.sent:
            summary.skipped += 1
        else:
            by_site.setdefault(submission.site, []).append(submission)
    queues = sorted(by_site.items(), key=lambda item: -len(item[1]))

    def send(item: tuple[str, list[Submission]]) -> list[tuple[int, int]]:
        site, submissions = item
        client = HubClient(base_url)
        client.login(coordinator_of(site), credentials.password)
        counts = [
            _send_one(client, trial, submission, before.given_up[submission.key])
            for submission in submissions
        ]
        client.close()
        progress(f"Site {site}: {len(submissions)} submissions sent.")
        return counts

    with ThreadPoolExecutor(CLIENTS) as pool:
        for counts in pool.map(send, queues):
            summary.submissions += len(counts)
            summary.files += sum(files for files, _ in counts)
            summary.bytes_sent += sum(size for _, size in counts)


def _send_one(client: HubClient, trial: str, submission: Submission, attempt: int) -> tuple[int, int]:
    opened = client.open_submission(
        trial=trial,
        site=submission.site,
        subject=submission.subject,
        visit=submission.visit,
        form={"demo": submission.key},
        key=f"demo-{submission.key}-{attempt}",
    )
    files = size = 0
    for upload in uploads(submission):
        client.upload_zip(opened["id"], upload.files)
        files += len(upload.files)
        size += sum(len(file.data) for file in upload.files)
    client.complete(opened["id"])
    return files, size


def _wait_until_judged(client: HubClient, trial: str, progress: Progress) -> None:
    """Wait until no submission and no series is under way.

    Raises FillFailed naming what still is after WAIT_S.
    """
    deadline = time.monotonic() + WAIT_S
    quiet_until = 0.0
    while True:
        waiting = [row for row in client.submissions(trial) if row["state"] not in FINAL_STATES]
        series = [] if waiting else _unchecked(client.series(trial=trial))
        if not waiting and not series:
            return
        if time.monotonic() > deadline:
            raise FillFailed(
                f"{len(waiting)} submissions and {len(series)} series are still under way after {WAIT_S:.0f} s."
                " Look at the jobs page; are the workers of the queues ingest and check alive?"
            )
        if time.monotonic() >= quiet_until:
            progress(f"Waiting for {len(waiting)} submissions and {len(series)} series ...")
            quiet_until = time.monotonic() + SAY_EVERY_S
        time.sleep(POLL_S)


def _unchecked(rows: Iterable[Document]) -> Sequence[Document]:
    return [row for row in rows if row["state"] not in ("checked", "failed")]
