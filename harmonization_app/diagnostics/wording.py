"""Small helpers for findings that read as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harmonization_app.algorithms.base import Finding

SHOWN = 10


def listed(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    shown = ", ".join(str(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def stops(findings: Iterable[Finding]) -> bool:
    """Return whether any finding stops the run."""
    return any(finding.severity == "stop" for finding in findings)
