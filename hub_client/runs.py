"""What the commands of runs do: start, watch, repeat, apply, read and download."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from hub_client.client import HubClient
from hub_client.commands import connected, followed
from hub_client.documents import FINAL_RUN_STATES, Run
from hub_client.harmonization import print_gate, read_document
from hub_client.printing import plain, print_table

PARTS = {"data": "csv", "model": "zip", "export": "zip"}


@connected
def run_list(given: Namespace, client: HubClient) -> int:
    columns = ("id", "kind", "mode", "state", "algorithm", "plan", "feature_set", "created_at")
    rows: list[Any] = list(client.runs(client.trial_id(given.trial)))
    print_table(columns, [[row[name] for name in columns] for row in rows])
    return 0


@connected
def run_start(given: Namespace, client: HubClient) -> int:
    if given.document:
        started = client.start_exploration(read_document(given.document), given.feature_set)
    else:
        started = client.start_run(given.plan, given.feature_set)
    return _started(given, client, started)


@connected
def run_rerun(given: Namespace, client: HubClient) -> int:
    return _started(given, client, client.rerun(given.run))


@connected
def run_apply(given: Namespace, client: HubClient) -> int:
    return _started(given, client, client.apply_model(given.run, given.feature_set))


@connected
def run_add_batch(given: Namespace, client: HubClient) -> int:
    return _started(given, client, client.add_batch(given.run, given.feature_set, given.batch, given.reason))


@connected
def run_watch(given: Namespace, client: HubClient) -> int:
    return _ended(given, client, given.run)


@connected
def run_cancel(given: Namespace, client: HubClient) -> int:
    row = client.cancel_run(given.run)
    print(f"Run {row['id']}: {row['state']}. {plain(row['reason'])}")
    return 0


def _started(given: Namespace, client: HubClient, row: Run) -> int:
    if given.no_wait:
        print(f"Run {row['id']}: {row['kind']}, {row['state']}. Follow it: hub-client run watch {row['id']}")
        return 0
    return _ended(given, client, row["id"])


def _ended(given: Namespace, client: HubClient, identity: str) -> int:
    row = followed(lambda: client.run(identity), FINAL_RUN_STATES, given.timeout, "run")
    why = f" ({plain(row['exploratory_reason'])})" if row["exploratory_reason"] else ""
    print(f"Run {row['id']}: {row['kind']}{why}, {row['state']}. {plain(row['reason'])}".rstrip())
    print_gate(row.get("gate", []))
    if row["state"] != "succeeded":
        return 1
    if given.output:
        client.download_run(identity, "data", given.output)
        print(f"Harmonized table: {given.output}")
    equality = row["summary"].get("equality")
    return 0 if equality is None else _repeated(equality)


def _repeated(equality: dict[str, Any]) -> int:
    """Print what a repetition showed; 0 where it is equal."""
    steps = "equal" if equality["iterations_equal"] else "DIFFERENT"
    if equality["bitwise"]:
        print(f"Repeated: bitwise equal to run {equality['of']}, iteration counts {steps}")
    else:
        largest = equality.get("max_difference_sd")
        words = "cannot be compared" if largest is None else f"largest difference {largest:.3g} SD"
        print(f"Repeated: NOT bitwise equal to run {equality['of']}: {words}, iteration counts {steps}")
    return 0 if equality["bitwise"] and equality["iterations_equal"] else 1


@connected
def run_download(given: Namespace, client: HubClient) -> int:
    """Save the harmonized table, the model or the export of a run."""
    path = given.output or Path(f"{given.part}-{given.run}.{PARTS[given.part]}")
    print(f"{path}, SHA-256 {client.download_run(given.run, given.part, path)}")
    if given.part == "export":
        print(f"Repeat it offline: unzip {path} -d run && cd run && python3 rerun.py")
    return 0


@connected
def run_report(given: Namespace, client: HubClient) -> int:
    path = given.output or Path(f"report-{given.run}.{given.form}")
    print(f"{path}, SHA-256 {client.download_run(given.run, f'report?as={given.form}', path)}")
    return 0


@connected
def run_diagnostics(given: Namespace, client: HubClient) -> int:
    """Print the diagnostics as JSON, or save them."""
    row = client.run(given.run)
    if not row["diagnostics"]:
        print(f"Run {row['id']} has no diagnostics: it is {row['state']}.", file=sys.stderr)
        return 1
    text = json.dumps(row["diagnostics"], indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if given.output:
        given.output.write_text(text, encoding="utf-8")
        print(f"Diagnostics: {given.output}")
    else:
        sys.stdout.write(text)
    return 0
