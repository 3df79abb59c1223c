"""The command line of harmonization: `features`, `algorithm`, `plan` and `run`, each with its actions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub_client import harmonization, runs

RUN_WAIT_S = 6 * 3600.0
Add = Callable[..., argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    _features(_group(add, "features", "feature sets: import, list, download"))
    _algorithms(_group(add, "algorithm", "algorithm versions: list, verify, lock, retire"))
    _plans(_group(add, "plan", "harmonization plans: draft, check, lock, amend, compare"))
    _runs(_group(add, "run", "harmonization runs: start, watch, repeat, apply, download"))


def with_action(arguments: list[str]) -> list[str]:
    """Return the arguments with the action `start` where `run` was called without one."""
    first = arguments[1] if len(arguments) > 1 else ""
    if arguments[:1] == ["run"] and first.startswith("--") and first != "--help":
        return ["run", "start", *arguments[1:]]
    return arguments


def _group(add: Add, name: str, text: str) -> Add:
    group = add(name, help=text).add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(action: str, do: Any, text: str) -> argparse.ArgumentParser:
        parser = group.add_parser(action, help=text)
        parser.set_defaults(do=do)
        return parser

    return action


def _trial(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trial", required=True, help="code or id")


def _output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=Path, help=text)


def _signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--meaning", required=True, help="what your signature means, in words")
    parser.add_argument("--otp", default="", help="one-time code, where the account has a second factor")


def _features(action: Add) -> None:
    parser = action("import", harmonization.features_import, "import a CSV, or build one from QC metrics")
    _trial(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("table", nargs="?", type=Path, help="CSV; with --matrix the labels of its rows")
    source.add_argument("--metrics", default="", help="QC metrics, by commas, in place of a table")
    parser.add_argument("--metadata", type=Path, help="JSON: columns with units and pools, batch, covariates")
    parser.add_argument("--matrix", type=Path, help="NPY of the features, rows as in the table")
    parser.add_argument("--expected-key", default="", help="expected series of the QC metrics")
    parser.add_argument("--name", default="", help="name of the feature set")
    _trial(action("list", harmonization.features_list, "list the feature sets of a trial"))
    parser = action("download", harmonization.features_download, "save a feature set's table")
    parser.add_argument("feature_set", help="id")
    _output(parser, "file for the table (features-<id>.csv)")


def _algorithms(action: Add) -> None:
    parser = action("list", harmonization.algorithm_list, "list the versions and their signatures")
    parser.add_argument("--algorithm", default="", help="only versions of this one, for example combat")
    parser = action("verify", harmonization.algorithm_verify, "reproduce the reference results on the hub")
    parser.add_argument("version", help="id of the version")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds to wait (1800)")
    text = "sign a verified version; two administrators lock it"
    parser = action("lock", harmonization.algorithm_lock, text)
    parser.add_argument("version", help="id of the version")
    _signing(parser)
    parser = action("retire", harmonization.algorithm_retire, "offer a locked version to no new plan")
    parser.add_argument("version", help="id of the version")
    parser.add_argument("--reason", required=True)


def _plans(action: Add) -> None:
    _trial(action("list", harmonization.plan_list, "list the plans of a trial and their versions"))
    parser = action("draft", harmonization.plan_draft, "make or replace a draft from a JSON file")
    parser.add_argument("document", type=Path, help="the plan's document, JSON")
    _trial(parser)
    parser = action("check", harmonization.plan_check, "ask the gate without running anything")
    parser.add_argument("plan", help="id")
    parser.add_argument("--feature-set", required=True, help="id")
    parser = action("lock", harmonization.plan_lock, "lock a draft with your signature")
    parser.add_argument("plan", help="id")
    _signing(parser)
    parser = action("amend", harmonization.plan_amend, "make the next draft of a locked plan")
    parser.add_argument("plan", help="id")
    parser.add_argument("--reason", required=True)
    parser = action("compare", harmonization.plan_compare, "run candidates on the same data, exploratory")
    parser.add_argument("--feature-set", required=True, help="id")
    parser.add_argument("--plan", action="append", default=[], help="id of a candidate; repeat it")
    parser.add_argument("--document", action="append", default=[], type=Path, help="JSON of a candidate")
    parser.add_argument("--csv", action="store_true")
    parser.add_argument("--timeout", type=float, default=RUN_WAIT_S, help="seconds to wait for each run")


def _runs(action: Add) -> None:
    _trial(action("list", runs.run_list, "list the runs of a trial"))
    parser = action("start", runs.run_start, "harmonize a feature set and wait for the end")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--plan", help="id")
    source.add_argument("--document", type=Path, help="JSON of a plan that is not stored: exploratory")
    parser.add_argument("--feature-set", required=True, help="id")
    _waiting(parser)
    parser = action("watch", runs.run_watch, "wait for a run and show what the gate said")
    parser.add_argument("run", help="id")
    _waiting(parser, may_leave=False)
    action("cancel", runs.run_cancel, "stop a run").add_argument("run", help="id")
    parser = action("rerun", runs.run_rerun, "repeat a run in a fresh process; is the result equal?")
    parser.add_argument("run", help="id")
    _waiting(parser)
    parser = action("apply", runs.run_apply, "correct new scans by the frozen model of a run")
    parser.add_argument("run", help="id")
    parser.add_argument("--feature-set", required=True, help="id")
    _waiting(parser)
    parser = action("add-batch", runs.run_add_batch, "add a batch to the frozen model of a run")
    parser.add_argument("run", help="id")
    parser.add_argument("--feature-set", required=True, help="id")
    parser.add_argument("--batch", required=True, help="the new batch as the feature set names it")
    parser.add_argument("--reason", required=True)
    _waiting(parser)
    _downloads(action)


def _downloads(action: Add) -> None:
    for part, text in (
        ("data", "save the harmonized table"),
        ("model", "save the fitted model"),
        ("export", "save a package that repeats the run offline"),
    ):
        parser = action(part, runs.run_download, text)
        parser.set_defaults(part=part)
        parser.add_argument("run", help="id")
        _output(parser, f"file ({part}-<id>.{runs.PARTS[part]})")
    parser = action("report", runs.run_report, "save the report")
    parser.add_argument("run", help="id")
    parser.add_argument("--as", dest="form", choices=("html", "pdf", "json"), default="pdf")
    _output(parser, "file (report-<id>.<form>)")
    parser = action("diagnostics", runs.run_diagnostics, "print or save the diagnostics, JSON")
    parser.add_argument("run", help="id")
    _output(parser, "file")


def _waiting(parser: argparse.ArgumentParser, may_leave: bool = True) -> None:
    parser.add_argument(
        "--timeout", type=float, default=RUN_WAIT_S, help=f"seconds to wait ({RUN_WAIT_S:.0f})"
    )
    parser.add_argument("-o", "--output", type=Path, help="file for the harmonized table (CSV)")
    if may_leave:
        parser.add_argument("--no-wait", action="store_true", help="start it and come back")
