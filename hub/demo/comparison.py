"""What was planted against what the hub found, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hub.demo.client import Document, HubClient
from hub.demo.packaged import packaged_submissions
from hub.demo.planted import DEVIATIONS, DRIFT_SITE, FILES, SCANNER_EVENTS, expected_findings

NOT_FOUND = "not found"
NOT_PLANTED = "not planted"


@dataclass(frozen=True, slots=True)
class Line:
    """One planted item, or one that was found though it was not planted."""

    kind: str
    what: str
    planted: bool
    found: bool

    def __str__(self) -> str:
        state = "ok" if self.planted and self.found else NOT_FOUND if self.planted else NOT_PLANTED
        return f"{self.kind:<22} {self.what:<52} {state}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All lines; `ok` where everything planted was found and nothing else."""

    items: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        return bool(self.items) and all(item.planted and item.found for item in self.items)

    def lines(self) -> Iterator[str]:
        """Yield the table planted / found, and a last line that sums it up."""
        yield f"{'planted':<22} {'where':<52} found"
        yield from map(str, self.items)
        planted = [item for item in self.items if item.planted]
        found = sum(item.found for item in planted)
        yield f"{found} of {len(planted)} planted items found; {len(self.items) - len(planted)} others found."


def compare(client: HubClient, trial: str) -> Comparison:
    """Return the comparison of the manifest with the hub's deviations, file outcomes and scanner events."""
    findings = frozenset(finding(row) for row in client.deviations(trial))
    outcomes = _file_outcomes(client, trial)
    real = real_findings()
    return Comparison(
        (
            *compare_findings(findings - real),
            *(Line("real file", " ".join(key), True, key in findings) for key in sorted(real)),
            *compare_files(outcomes),
            *_compare_scanners(client, trial),
        )
    )


def finding(row: Document) -> tuple[str, str, str, str]:
    """Return (subject, visit, rule, outcome) of a deviation."""
    return row["subject_code"], row["visit_code"], row["rule"], row["kind"]


def real_findings() -> frozenset[tuple[str, str, str, str]]:
    """Return what the real files must give: they were acquired for no trial, so they match no expected series."""
    return frozenset(
        (item.subject, item.visit, "series_not_expected", "not_evaluable") for item in packaged_submissions()
    )


def compare_findings(found: frozenset[tuple[str, str, str, str]]) -> tuple[Line, ...]:
    """Return a line per planted verdict and per verdict that nobody planted."""
    kinds = {
        (item.subject, item.visit, rule, outcome): item.kind
        for item in DEVIATIONS
        for rule, outcome in item.verdicts.items()
    }
    planted = [Line(kinds[key], " ".join(key), True, key in found) for key in sorted(expected_findings())]
    others = [Line("deviation", " ".join(key), False, True) for key in sorted(found - expected_findings())]
    return (*planted, *others)


def compare_files(outcomes: Iterable[tuple[str, str, str]]) -> tuple[Line, ...]:
    """Return a line per planted file and per other file that was not accepted.

    `outcomes` holds (subject, visit, outcome) of every file that was not simply accepted.
    """
    left = list(outcomes)
    lines = []
    for item in FILES:
        match = next(
            (row for row in left if row[:2] == (item.subject, item.visit) and row[2] in item.outcomes), None
        )
        if match is not None:
            left.remove(match)
        lines.append(Line(f"file: {item.kind}", f"{item.subject} {item.visit}", True, match is not None))
    return (*lines, *(Line("file", " ".join(row), False, True) for row in left))


def _file_outcomes(client: HubClient, trial: str) -> list[tuple[str, str, str]]:
    found = []
    for row in client.submissions(trial):
        for file in client.submission(row["id"]).get("files", ()):
            if file["outcome"] != "accepted":
                found.append((row["subject_code"], row["visit_code"], file["outcome"]))
    return found


def _compare_scanners(client: HubClient, trial: str) -> tuple[Line, ...]:
    lines = []
    changes = {(row["site_code"], row["serial_number"]) for row in client.change_events(trial)}
    drifts = {(row["site_code"], row["serial_number"]) for row in client.drift_alerts(trial)}
    for item in SCANNER_EVENTS:
        found = drifts if item.site == DRIFT_SITE else changes
        lines.append(Line(item.kind, f"{item.site} {item.serial}", True, (item.site, item.serial) in found))
    planted = {(item.site, item.serial) for item in SCANNER_EVENTS}
    for kind, rows in (("scanner change", changes), ("drift alert", drifts)):
        lines += [Line(kind, " ".join(row), False, True) for row in sorted(rows - planted)]
    return tuple(lines)
