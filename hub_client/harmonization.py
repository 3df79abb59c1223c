"""What the commands of harmonization do: feature sets, algorithm versions, plans. Runs are in `runs`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from hub_client.client import HubClient
from hub_client.commands import connected, followed, note, secret
from hub_client.documents import FINAL_RUN_STATES, Document, Finding
from hub_client.printing import plain, print_csv, print_table

FINAL_JOB_STATES = frozenset({"succeeded", "failed", "cancelled"})


def read_document(path: Path) -> Document:
    """Return the JSON object of a file. Raises ValueError naming the file where it holds none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return document


def print_gate(findings: list[Finding]) -> None:
    for finding in findings:
        print(f"  {finding['severity']}: {plain(finding['message'])}")


@connected
def features_import(given: Namespace, client: HubClient) -> int:
    trial = client.trial_id(given.trial)
    if given.metrics:
        name = given.name or given.metrics
        row = client.build_features(trial, name, given.metrics.split(","), given.expected_key)
    else:
        metadata = read_document(given.metadata)
        metadata["name"] = given.name or metadata.get("name") or given.table.stem
        matrix = given.matrix.read_bytes() if given.matrix else b""
        row = client.import_features(trial, given.table.read_bytes(), metadata, matrix=matrix)
    print(
        f"Feature set {row['id']}: {plain(row['name'])}, {row['row_count']} rows, {row['column_count']} features"
    )
    print(f"digest {row['digest']}")
    return 0


@connected
def features_list(given: Namespace, client: HubClient) -> int:
    rows = client.feature_sets(client.trial_id(given.trial))
    columns = ("id", "name", "origin", "row_count", "column_count", "missing_count", "digest", "created_at")
    print_table(columns, [[row[name] for name in columns] for row in rows])
    return 0


@connected
def features_download(given: Namespace, client: HubClient) -> int:
    path = given.output or Path(f"features-{given.feature_set}.csv")
    print(f"Table: {path}, SHA-256 {client.download_features(given.feature_set, path)}")
    return 0


@connected
def algorithm_list(given: Namespace, client: HubClient) -> int:
    rows = client.algorithm_versions(**({"algorithm": given.algorithm} if given.algorithm else {}))
    print_table(
        ("id", "algorithm", "version", "state", "signatures", "code"),
        [
            [
                row["id"],
                row["algorithm"],
                row["version"],
                row["state"],
                f"{_signatures(row)}/{row['signatures_required']}",
                row["code_digest"][:12],
            ]
            for row in rows
        ],
    )
    return 0


def _signatures(row: Document) -> int:
    return sum(row[name] is not None for name in ("signature", "second_signature"))


@connected
def algorithm_verify(given: Namespace, client: HubClient) -> int:
    job = client.verify_algorithm_version(given.version)
    done = followed(lambda: client.get(f"jobs/{job['id']}/"), FINAL_JOB_STATES, given.timeout, "verification")
    row = client.algorithm_version(given.version)
    report = row["verification"] or {"cases": [], "passed": False, "with_reference_set": False}
    print_table(
        ("case", "largest difference (SD)", "tolerance", "outcome"),
        [
            [case["case"], _number(case["max_difference_sd"]), _number(case["tolerance_sd"]), _outcome(case)]
            for case in report["cases"]
        ],
    )
    used = "with" if report["with_reference_set"] else "without"
    print(
        f"{row['algorithm']} {row['version']}: {row['state']} ({used} the reference set) {plain(done['reason'])}"
    )
    return 0 if done["state"] == "succeeded" and report["passed"] else 1


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _outcome(case: Document) -> str:
    if case["refused"]:
        return f"refused, rightly: {case['reason']}"
    return "agrees" if case["passed"] else f"DIFFERS {case['reason']}".strip()


@connected
def algorithm_lock(given: Namespace, client: HubClient) -> int:
    """Sign; a version is locked when two administrators have."""
    row = client.lock(
        "algorithm-versions",
        given.version,
        password=secret("Password: "),
        meaning=given.meaning,
        otp=given.otp,
    )
    if row["state"] == "locked":
        print(f"{row['algorithm']} {row['version']}: locked by two signatures")
    else:
        print(
            f"{row['algorithm']} {row['version']}: signed; a second, different administrator has to sign too"
        )
    return 0


@connected
def algorithm_retire(given: Namespace, client: HubClient) -> int:
    row = client.retire_algorithm_version(given.version, given.reason)
    print(f"{row['algorithm']} {row['version']}: {row['state']}")
    return 0


@connected
def plan_list(given: Namespace, client: HubClient) -> int:
    rows = client.plans(client.trial_id(given.trial))
    columns = ("id", "name", "version", "state", "title", "digest")
    print_table(columns, [[row[name] for name in columns] for row in rows])
    return 0


@connected
def plan_draft(given: Namespace, client: HubClient) -> int:
    row = client.draft_plan(client.trial_id(given.trial), read_document(given.document))
    print(f"Plan {row['id']}: {plain(row['title'])}, version {row['version']}, {row['state']}")
    return 0


@connected
def plan_check(given: Namespace, client: HubClient) -> int:
    gate = client.check_plan(given.plan, given.feature_set)
    print_gate(gate["findings"])
    print("The gate passes." if gate["passes"] else "The gate refuses: nothing would be harmonized.")
    return 0 if gate["passes"] else 1


@connected
def plan_lock(given: Namespace, client: HubClient) -> int:
    row = client.lock(
        "harmonization-plans", given.plan, password=secret("Password: "), meaning=given.meaning, otp=given.otp
    )
    print(
        f"Plan {row['id']}: {plain(row['title'])}, version {row['version']}, {row['state']}, {row['digest']}"
    )
    return 0


@connected
def plan_amend(given: Namespace, client: HubClient) -> int:
    row = client.amend_plan(given.plan, given.reason)
    print(f"Plan {row['id']}: {plain(row['title'])}, version {row['version']}, {row['state']}")
    return 0


@connected
def plan_compare(given: Namespace, client: HubClient) -> int:
    """Run candidates on the same data and print them side by side; exploratory throughout."""
    documents = [read_document(path) for path in given.document]
    started = client.start_comparison(given.feature_set, given.plan, documents)
    ids = [row["id"] for row in started]
    for identity in ids:
        followed(lambda identity=identity: client.run(identity), FINAL_RUN_STATES, given.timeout, "run")  # type: ignore[misc]
    found = client.comparison(ids)
    letters = [chr(ord("A") + index) for index in range(len(ids))]
    for letter, run in zip(letters, found["runs"], strict=True):
        note(f"{letter}: run {run['id']}, {run['state']}. {plain(run['reason'])}")
    rows: list[list[Any]] = [
        [row["title"], "held out" if row["held_out"] else "in sample", *map(_number, row["values"])]
        for row in found["measures"]
    ]
    (print_csv if given.csv else print_table)(("EXPLORATORY", "evidence", *letters), rows)
    return 0 if all(run["state"] == "succeeded" for run in found["runs"]) else 1
