"""What a method says of itself and of its fit: limits, features treated otherwise, plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Algorithm, Result

LISTED_FLAGGED = 100
LONGEST_FACT = 50
LEFT_OUT = frozenset({"findings", "limits"})
UNUSABLE = "unusable"
MEANINGS: Mapping[str, str] = {
    "constant": "One value in all scans; passed through unchanged.",
    "constant_in_batch": "One value in all scans of a batch; its mean is moved there, its scale is not.",
    UNUSABLE: "Too few observed scans, or these do not determine the covariates; passed through unchanged.",
    "singular_fit": (
        "The mixed model found no variance left between subjects or in their slopes; its figures depend on the "
        "optimizer to about 0.01 SD. Plan a random intercept alone, or read the sensitivity analyses."
    ),
}
# A flag `unusable: STEP` is that of one step of several.
LEFT_BY_A_STEP = (
    "Not corrected for {step}: too few observed scans in one of its levels, or these do not determine the covariates. "
    "Corrected for every other batch variable that no such flag names."
)
OTHER_MEANING = "Treated otherwise than the rest; see the method's description."


def limits_of(algorithm: Algorithm, result: Result) -> tuple[str, ...]:
    """Return the sentences on what the method cannot do, its own and those of this fit, each once."""
    given: list[str] = []
    for source in (algorithm.limits, result.facts.get("limits", ())):
        given += [source] if isinstance(source, str) else list(source)
    return tuple(dict.fromkeys(given))


def flags_of(result: Result) -> dict[str, dict[str, Any]]:
    """Return the features the method treated otherwise, by reason: how many, the first hundred, what it means."""
    return {
        code: {
            "features": len(names),
            "listed": list(names[:LISTED_FLAGGED]),
            "meaning": _meaning(code),
        }
        for code, names in result.flags.items()
    }


def _meaning(code: str) -> str:
    """Return what a flag means, that of one step with the step's name."""
    reason, of_step, step = code.partition(": ")
    if of_step and reason == UNUSABLE:
        return LEFT_BY_A_STEP.format(step=step)
    return MEANINGS.get(code, OTHER_MEANING)


def plain_facts(result: Result) -> dict[str, Any]:
    """Return the facts of the fit that are plain and short enough to show."""
    found = {name: _plain(value) for name, value in result.facts.items() if name not in LEFT_OUT}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return the value as plain JSON, None where it is none or too long."""
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, np.floating, np.integer)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, Mapping) and len(value) <= LONGEST_FACT:
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)) and len(value) <= LONGEST_FACT:
        return [_plain(item) for item in value]
    return None
