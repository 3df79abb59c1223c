"""Killed workers, lost queues and restarted databases, in the middle of harmonization runs and exports."""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from harmonization_app.offline.verify_package import verify
from hub.demo.features import as_csv, metadata
from hub.demo.trial import TRIAL_CODE, harmonization_plan_document, trial_document
from tests.faults.load import CarefulClient, Sent
from tests.faults.private_hub import PrivateHub, await_that

pytestmark = pytest.mark.faults

SECTIONS = ("trial", "arms", "visit_definitions", "sites", "subjects")
NEW_BATCH = "175505 syngo MR XA31"
FINAL_WITHIN_S = 90.0
WORKER = "worker-harmonize"
_RUN, _EXPORT = "harmonization_app_harmonizationrun", "harmonization_app_export"
# What names the run itself, in the outputs of which everything else is the same for the same question.
_IDENTITY = ("run", "kind", "exploratory_reason", "mode", "model_of")


@dataclass(frozen=True)
class Results:
    """What a run stored, without its own id, to be compared bit for bit."""

    summary: dict[str, Any]
    gate: list[Any]
    decisions: dict[str, Any]
    table: bytes
    model: dict[str, bytes]
    diagnostics: dict[str, Any]


class Harmonization:
    """A trial with features, and an undisturbed run with its model applied and extended."""

    def __init__(self, hub: PrivateHub) -> None:
        self.hub = hub
        self.client = CarefulClient(hub, Sent())
        _apply_trial(hub)
        ((trial,),) = hub.rows("SELECT id::text FROM sites_app_trial WHERE code = %s", TRIAL_CODE)
        self.trial = trial
        header, *lines = as_csv().splitlines()
        self.learnt = self.imported([header, *(line for line in lines if NEW_BATCH not in line)])
        self.further = self.imported([header, *(line for line in lines if NEW_BATCH in line)])
        self.fit = self.start()
        await_that(lambda: self.state(self.fit) == "succeeded", FINAL_WITHIN_S)
        self.applied, self.added = self.apply(), self.add_batch()
        for run in (self.applied, self.added):
            await_that(lambda run=run: self.state(run) == "succeeded", FINAL_WITHIN_S)

    def imported(self, lines: list[str]) -> str:
        files = {
            "file": ("features.csv", "\n".join(lines), "text/csv"),
            "trial": (None, self.trial),
            "name": (None, f"{len(lines)} lines"),
            "metadata": (None, json.dumps(metadata())),
        }
        return str(self.client.made("POST", "feature-sets/", files=files)["id"])

    def start(self) -> str:
        document = harmonization_plan_document()
        own = [item for item in document["sensitivity"] if item["kind"] != "algorithm"]
        body = {"feature_set": self.learnt, "specification": {**document, "sensitivity": own}}
        return str(self.client.made("POST", "harmonization-runs/", json=body)["id"])

    def apply(self) -> str:
        body = {"feature_set": self.learnt}
        return str(self.client.made("POST", f"harmonization-runs/{self.fit}/apply/", json=body)["id"])

    def add_batch(self) -> str:
        body = {"feature_set": self.further, "batch": NEW_BATCH, "reason": "a new scanner"}
        return str(self.client.made("POST", f"harmonization-runs/{self.fit}/add-batch/", json=body)["id"])

    def start_export(self) -> str:
        return str(self.client.made("POST", "exports/", json={"trial": self.trial})["id"])

    def cancel(self, run: str) -> int:
        return self.client.request("POST", f"harmonization-runs/{run}/cancel/").status_code

    def state(self, row: str, table: str = _RUN) -> str:
        ((state,),) = self.hub.rows(f"SELECT state FROM {table} WHERE id = %s", row)
        return str(state)

    def job(self, row: str) -> tuple[str, float, int, str]:
        """Return state, progress, attempts and worker of the job of a run or an export."""
        (found,) = self.hub.rows("SELECT state, progress, attempts, worker FROM core_job WHERE key = %s", row)
        return found

    def reached(self, row: str, share: float) -> None:
        await_that(lambda: self.job(row)[1] >= share, 60, every_s=0.01)

    def kill_worker_of(self, row: str) -> None:
        """Kill the process that works on a run or an export, which must still be at it."""
        state, _, _, worker = self.job(row)
        child = int(worker.rpartition(":")[2])
        assert state == "running"
        assert child in self.hub.children(WORKER)
        os.kill(child, signal.SIGKILL)

    def results(self, run: str) -> Results:
        summary, gate, decisions, diagnostics = self.hub.rows(
            f"SELECT summary, gate, row_decisions, diagnostics_digest FROM {_RUN} WHERE id = %s", run
        )[0]
        answer = self.client.request("GET", f"harmonization-runs/{run}/model/")
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            model = {name: archive.read(name) for name in archive.namelist() if name != "run.json"}
        table = self.client.request("GET", f"harmonization-runs/{run}/data/").content
        blob = self.hub.layout.var / "data" / "blobs" / diagnostics[:2] / diagnostics
        report = json.loads(blob.read_bytes()) if diagnostics else {}
        kept = {name: value for name, value in report.items() if name not in _IDENTITY}
        return Results(summary, gate, decisions, table.replace(run.encode(), b"-"), model, kept)

    def actions(self, row: str) -> list[str]:
        found = self.hub.rows(
            "SELECT action FROM core_audit_event WHERE object_id = %s ORDER BY sequence", row
        )
        return [action.partition(".")[2] for (action,) in found]

    def assert_same_result(self, run: str, as_of: str, attempts: int | None = None) -> None:
        """Prove that a disturbed run ended once, with the bits of the undisturbed one."""
        ended = "SELECT count(*) FROM core_job WHERE key = %s AND state = 'succeeded'"
        await_that(lambda: self.hub.rows(ended, run) == [(1,)], FINAL_WITHIN_S, every_s=0.3)
        assert self.results(run) == self.results(as_of)
        taken = self.actions(run)
        assert (taken[0], taken[-1]) == ("started", "succeeded")
        assert taken.count("succeeded") == 1
        assert len(taken) == 2 + taken.count("running")
        if attempts is not None:
            assert self.job(run)[2] == attempts

    def assert_nothing_left(self) -> None:
        """Prove that no working file is left, that each package verifies, and that the audit chain is whole."""
        data = self.hub.layout.var / "data"
        assert not [path for path in (data / "run-exports").glob("*")]
        names = self.hub.rows(
            f"SELECT id || '-' || package_sha256 || '.zip' FROM {_EXPORT} WHERE state = 'succeeded'"
        )
        assert {path.name for path in (data / "exports").glob("*")} == {name for (name,) in names}
        assert self.hub.rows("SELECT count(*) FROM core_job WHERE state = 'failed'") == [(0,)]
        self.hub.settle()
        assert not [path for path in (data / "blobs").rglob(".partial-*")]


def _apply_trial(hub: PrivateHub) -> None:
    file = hub.layout.var / "trial.json"
    file.write_text(json.dumps({key: value for key, value in trial_document().items() if key in SECTIONS}))
    hub.manage("apply_trial", str(file))


@pytest.fixture(scope="module")
def runs(hub: PrivateHub) -> Harmonization:
    return Harmonization(hub)


@contextmanager
def _held(hub: PrivateHub, table: str, column: str, value: str) -> Iterator[None]:
    """Hold one row, so that whoever would change it stops there."""
    connection = hub.connection()
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {table} WHERE {column} = %s FOR UPDATE", [value])
        yield
    finally:
        connection.close()


def _somebody_waits(hub: PrivateHub) -> bool:
    return hub.rows("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted") == [(True,)]


@contextmanager
def _stopped_worker(hub: PrivateHub) -> Iterator[None]:
    """Stop the harmonize worker, with all its processes, for a while."""
    group = hub.pid(WORKER)
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def _killed_at_the_beginning(runs: Harmonization) -> str:
    with _stopped_worker(runs.hub):
        run = runs.start()
        held = _held(runs.hub, _RUN, "id", run)
        held.__enter__()
    await_that(lambda: runs.job(run)[0] == "running" and _somebody_waits(runs.hub), 60, every_s=0.02)
    runs.kill_worker_of(run)
    held.__exit__(None, None, None)
    assert runs.state(run) == "queued"
    return run


def _killed_in_the_middle(runs: Harmonization, ask: Callable[[], str], share: float) -> str:
    row = ask()
    runs.reached(row, share)
    with _held(runs.hub, "core_job", "key", row):
        runs.kill_worker_of(row)
    return row


def _killed_at_the_end(runs: Harmonization, ask: Callable[[], str]) -> str:
    run = ask()
    runs.reached(run, 0.3)
    with _held(runs.hub, _RUN, "id", run):
        runs.reached(run, 0.95)
        await_that(lambda: _somebody_waits(runs.hub), 30, every_s=0.02)
        runs.kill_worker_of(run)
    assert runs.state(run) == "running"
    return run


def test_workers_killed_at_each_stage_change_no_bit(hub: PrivateHub, runs: Harmonization) -> None:
    disturbed = [
        (_killed_at_the_beginning(runs), runs.fit),
        (_killed_in_the_middle(runs, runs.start, 0.6), runs.fit),
        (_killed_at_the_end(runs, runs.start), runs.fit),
        (_killed_in_the_middle(runs, runs.apply, 0.5), runs.applied),
        (_killed_in_the_middle(runs, runs.add_batch, 0.5), runs.added),
    ]
    export = _killed_in_the_middle(runs, runs.start_export, 0.05)
    assert list((hub.layout.var / "data" / "exports").glob(f"{export}.partial-*"))

    for run, undisturbed in disturbed:
        runs.assert_same_result(run, undisturbed, attempts=2)
    await_that(lambda: runs.job(export)[0] == "succeeded", FINAL_WITHIN_S)
    (package,) = (hub.layout.var / "data" / "exports").glob(f"{export}*")
    assert verify(package).problem == ""
    assert runs.actions(export) == ["requested", "succeeded"]
    runs.assert_nothing_left()


def test_restarted_databases_and_lost_messages_and_jobs_change_no_bit(
    hub: PrivateHub, runs: Harmonization
) -> None:
    run = runs.start()
    runs.reached(run, 0.1)
    hub.restart_postgres(signal.SIGINT)
    with _stopped_worker(hub):
        waiting, export = runs.apply(), runs.start_export()
        without_job, orphan = runs.add_batch(), runs.start()
        _execute(hub, "DELETE FROM core_job WHERE key = %s", without_job)
        _execute(hub, "UPDATE core_job SET state = 'cancelled', reason = 'By hand.' WHERE key = %s", orphan)
        hub.redis().flushall()
        hub.kill("redis")
    runs.reached(run, 0.6)
    hub.restart_postgres(signal.SIGQUIT)

    for disturbed, undisturbed in ((run, runs.fit), (waiting, runs.applied), (without_job, runs.added)):
        runs.assert_same_result(disturbed, undisturbed)
    await_that(lambda: runs.job(export)[0] == "succeeded", FINAL_WITHIN_S)
    assert hub.rows("SELECT max(attempts) > 1 FROM core_job WHERE key = %s", run) == [(True,)]
    await_that(lambda: runs.state(orphan) == "cancelled", 40)
    assert hub.rows(f"SELECT reason FROM {_RUN} WHERE id = %s", orphan) == [("By hand.",)]
    runs.assert_nothing_left()


def test_cancelled_runs_end_once_whether_they_wait_or_run(hub: PrivateHub, runs: Harmonization) -> None:
    running = runs.start()
    runs.reached(running, 0.1)
    with _stopped_worker(hub):
        waiting = runs.start()
        assert [runs.cancel(waiting), runs.cancel(running)] == [200, 200]
        assert [runs.cancel(waiting), runs.cancel(running)] == [409, 409]
    await_that(lambda: runs.job(running)[0] == "cancelled", 30)

    for run in (waiting, running):
        assert (runs.state(run), runs.job(run)[0]) == ("cancelled", "cancelled")
        assert [word for word in runs.actions(run) if word != "running"] == [
            "started",
            "cancelled",
            "cancel_requested",
        ]
    assert hub.rows(f"SELECT data_digest FROM {_RUN} WHERE id IN (%s, %s)", waiting, running) == [("",)] * 2
    runs.assert_nothing_left()


def _execute(hub: PrivateHub, sql: str, value: str) -> None:
    connection = hub.connection()
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, [value])
    finally:
        connection.close()
