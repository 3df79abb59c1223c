"""How every state is shown: one tone (colour), one shape and its word, in pages, reports and charts.

Colours are of the Okabe-Ito palette, which people with colour vision deficiency can tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StateStyle:
    """`tone` is one of good, warn, bad, unknown, active, quiet; `icon` names a shape of icons.svg."""

    tone: str
    icon: str


GOOD = StateStyle("good", "check")
WARN = StateStyle("warn", "triangle")
BAD = StateStyle("bad", "cross")
UNKNOWN = StateStyle("unknown", "question")
ACTIVE = StateStyle("active", "progress")
QUIET = StateStyle("quiet", "dot")
LOCKED = StateStyle("good", "lock")

STATES: dict[str, StateStyle] = {
    "compliant": GOOD,
    "pass": GOOD,
    "accepted": GOOD,
    "succeeded": GOOD,
    "checked": GOOD,
    "resolved": GOOD,
    "verified": GOOD,
    "intact": GOOD,
    "reviewed": GOOD,
    "received": ACTIVE,
    "locked": LOCKED,
    "primary": LOCKED,
    "warn": WARN,
    "minor": WARN,
    "major": BAD,
    "critical": BAD,
    "info": QUIET,
    "accepted_with_rejections": WARN,
    "waived": WARN,
    "exploratory": WARN,
    "frozen": WARN,
    "acknowledged": WARN,
    "answered": WARN,
    "deviant": BAD,
    "fail": BAD,
    "failed": BAD,
    "refused": BAD,
    "rejected": BAD,
    "quarantined": BAD,
    "stop": BAD,
    "broken": BAD,
    "not_evaluable": UNKNOWN,
    "missing": UNKNOWN,
    "open": StateStyle("active", "ring"),
    "queued": StateStyle("active", "ring"),
    "running": ACTIVE,
    "processing": ACTIVE,
    "checking": ACTIVE,
    "registered": StateStyle("active", "ring"),
    "draft": StateStyle("quiet", "pencil"),
    "superseded": QUIET,
    "retired": QUIET,
    "closed": QUIET,
    "cancelled": QUIET,
    "duplicate": QUIET,
    "ignored": QUIET,
    "expected": StateStyle("quiet", "ring"),
    "none": QUIET,
}


def style_of(state: str) -> StateStyle:
    """Return the style of a state; an unknown one is shown as unknown, never as good."""
    return STATES.get(state, UNKNOWN)


def label_of(state: str) -> str:
    return state.replace("_", " ")
