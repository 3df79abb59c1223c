"""The demonstration's harmonization through the public API: features, algorithm, plan, run, and what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hub.demo.client import FINAL_RUN_STATES, Document, HubClient
from hub.demo.effects import Effects, measure_effects, read_values, without_rows
from hub.demo.features import as_csv, feature_table, metadata

ALGORITHMS = ("combat", "longcombat")
"""The algorithm of the demonstration's plan, and that of its sensitivity analysis."""

LOCK_MEANING = "I approve this version for the demonstration trial."
RUN_WAIT_S = 300.0
LARGEST_SHARE_LEFT = 0.25
"""Largest share of the scanners' eta squared that may be left after harmonization."""

AGE_SLOPE_WITHIN = 0.35
"""Largest relative difference of the mean age slope from the planted one; its standard error is about 0.1."""


@dataclass(frozen=True, slots=True)
class Harmonized:
    """The run and the planted effects in the table before and after it."""

    run: str
    state: str
    before: Effects
    after: Effects | None

    @property
    def ok(self) -> bool:
        if self.state != "succeeded" or self.after is None:
            return False
        removed = self.after.mean_eta_squared <= LARGEST_SHARE_LEFT * self.before.mean_eta_squared
        return removed and abs(self.after.mean_relative_age_slope - 1) <= AGE_SLOPE_WITHIN

    def __str__(self) -> str:
        if self.after is None:
            return f"Harmonization run {self.run}: {self.state}."
        return (
            f"Harmonization: scanner effect (mean partial eta squared) {self.before.mean_eta_squared:.3f} before,"
            f" {self.after.mean_eta_squared:.3f} after; age slope {self.before.mean_relative_age_slope:.2f} and"
            f" {self.after.mean_relative_age_slope:.2f} of the planted one."
        )


def harmonize(
    base_url: str,
    admin: HubClient,
    trial: str,
    password: str,
    *,
    statistician: str,
    second_administrator: str,
    progress: Callable[[str], None],
) -> Harmonized:
    """Import the features, verify and lock algorithm and plan, run, and measure; what exists is used again.

    The algorithm version is locked by two administrators, as it has to be.

    Raises LookupError where the hub has no such algorithm or plan, TimeoutError where the run does not end.
    """
    person = HubClient(base_url)
    person.login(statistician, password)
    feature_set = _feature_set(person, trial)
    second = HubClient(base_url)
    second.login(second_administrator, password)
    for algorithm in ALGORITHMS:
        _lock_algorithm(admin, second, password, algorithm, progress)
    second.close()
    plan = _locked_plan(admin, trial, password)
    run = _finished_run(person, trial, plan, feature_set["id"])
    table = without_rows(feature_table(), run["row_decisions"].get("excluded", ()))
    before, after = measure_effects(table.values, table), None
    if run["state"] == "succeeded":
        after = measure_effects(read_values(person.run_data(run["id"]), table), table)
    person.close()
    result = Harmonized(str(run["id"]), str(run["state"]), before, after)
    progress(str(result))
    return result


def _feature_set(client: HubClient, trial: str) -> Document:
    wanted = metadata()["name"]
    for row in client.feature_sets(trial):
        if row["name"] == wanted:
            return row
    return client.import_features(trial, as_csv(), metadata())


def _lock_algorithm(
    client: HubClient, second: HubClient, password: str, algorithm: str, progress: Callable[[str], None]
) -> None:
    rows = [row for row in client.algorithm_versions() if row["algorithm"] == algorithm]
    if not rows:
        raise LookupError(f"The hub has no version of the algorithm {algorithm}.")
    if any(row["state"] == "locked" for row in rows):
        return
    version = rows[0]
    if version["state"] != "verified":
        client.verify_algorithm_version(version["id"])
        version = _until(lambda: client.algorithm_version(rows[0]["id"]), _is_verified)
    if not version["signature"]:
        client.lock("algorithm-versions", version["id"], password=password, meaning=LOCK_MEANING)
    second.lock("algorithm-versions", version["id"], password=password, meaning=LOCK_MEANING)
    progress(f"algorithm {algorithm}: reference results reproduced here, locked by two administrators.")


def _locked_plan(client: HubClient, trial: str, password: str) -> str:
    rows = client.versions("harmonization-plans", trial)
    for state in ("locked", "draft"):
        for row in rows:
            if row["state"] == state:
                if state == "draft":
                    client.lock("harmonization-plans", row["id"], password=password, meaning=LOCK_MEANING)
                return str(row["id"])
    raise LookupError("The trial has no harmonization plan. Apply the demonstration's trial file again.")


def _finished_run(client: HubClient, trial: str, plan: str, feature_set: str) -> Document:
    for row in client.runs(trial):
        if row.get("plan") == plan and row["state"] == "succeeded":
            return row
    run = client.start_run(plan, feature_set)
    return _until(lambda: client.run(run["id"]), lambda row: row["state"] in FINAL_RUN_STATES)


def _is_verified(version: Document) -> bool:
    """Tell whether verification passed; raise LookupError with what it reported where it did not."""
    if version["state"] == "registered" and version.get("verification"):
        raise LookupError(
            f"The algorithm {version['algorithm']} does not reproduce its reference results on this hub."
        )
    return version["state"] != "registered"


def _until(read: Callable[[], Document], done: Callable[[Document], bool]) -> Document:
    deadline = time.monotonic() + RUN_WAIT_S
    while True:
        row = read()
        if done(row):
            return row
        if time.monotonic() > deadline:
            raise TimeoutError(f"{row.get('id')} is still {row['state']} after {RUN_WAIT_S:.0f} s.")
        time.sleep(0.5)
