"""What the commands print: results on standard output, in words."""

from __future__ import annotations

import csv
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from hub_client.documents import SeriesVerdicts
from hub_client.upload import Outcome

# OWASP, CSV injection (CWE-1236): a cell that begins so is run by a spreadsheet.
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


def plain(value: Any) -> str:
    """Return text for a terminal: control characters (file names may hold some) are shown as “?”."""
    text = "" if value is None else str(value)
    return "".join("?" if unicodedata.category(letter) in ("Cc", "Cf") else letter for letter in text)


def print_outcome(outcome: Outcome) -> None:
    """Print every file that was not accepted, every verdict that is not compliant, and the end result."""
    submission = outcome.submission
    counts = ", ".join(f"{name} {count}" for name, count in submission["counts"].items() if count)
    print(f"Submission {submission['id']}: {submission['state'].replace('_', ' ')} ({counts or 'no files'})")
    if submission["reason"]:
        print(f"  {plain(submission['reason'])}")
    for file in outcome.files:
        name = file["name"] or file["sha256"][:12]
        print(
            f"  {plain(name)}: {file['outcome']} ({file['code']}): {plain(file['detail'])} {plain(file['action'])}"
        )
    for name in outcome.missing:
        print(f"  {plain(name)}: sent, but not in the receipt")
    for name, verdicts in outcome.series:
        _print_series(name, verdicts)


def _print_series(name: str, verdicts: SeriesVerdicts) -> None:
    count = len(verdicts["verdicts"])
    kept = sum(item["outcome"] == "compliant" for item in verdicts["verdicts"])
    outcome = verdicts["outcome"] or verdicts["state"]
    print(f"Series {plain(name)}: {outcome.replace('_', ' ')} ({kept} of {count} rules compliant)")
    if verdicts["reason"]:
        print(f"  {plain(verdicts['reason'])}")
    for item in verdicts["verdicts"]:
        if item["outcome"] != "compliant":
            found = "nothing" if item["observed"] is None else plain(item["observed"])
            print(
                f"  {plain(item['label'])}: {item['outcome'].replace('_', ' ')}, {item['severity']};"
                f" expected {plain(item['expected'])} {item['unit']}, found {found}. {plain(item['action'])}"
            )


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print CSV (RFC 4180) in which no cell is taken for a formula."""
    writer = csv.writer(sys.stdout)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_safe(value) for value in row])


def _safe(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in columns."""
    lines = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
