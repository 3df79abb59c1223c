"""The way from features to data lock: what is done, what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harmonization_app.algorithms.registry import ALGORITHMS, source_digest
from harmonization_app.models import (
    AlgorithmVersion,
    AlgorithmVersionState,
    FeatureSet,
    HarmonizationPlan,
    HarmonizationRun,
    RunState,
)
from qc_app.models import VersionState
from sites_app.models import LockState, Trial


@dataclass(frozen=True)
class Step:
    """One step of the way: done, next or later, with a sentence that says how it stands."""

    number: int
    title: str
    state: str
    sentence: str
    url_name: str
    of_trial: bool = True


def steps(user: Any, trial: Trial) -> list[Step]:
    """Return the five steps as they stand for `trial`; the first that is not done is the next."""
    raw = [
        ("Feature set", *_features(user, trial), "feature-sets", True),
        ("Algorithm version", *_algorithms(), "algorithms", False),
        ("Plan", *_plans(user, trial), "plans", True),
        ("Run", *_runs(user, trial), "runs", True),
        ("Data lock", *_lock(trial), "data-lock", True),
    ]
    found: list[Step] = []
    for number, (title, done, sentence, url_name, of_trial) in enumerate(raw, start=1):
        waits = any(step.state != "done" for step in found)
        state = "done" if done else "later" if waits else "next"
        found.append(Step(number, title, state, sentence, url_name, of_trial))
    return found


def _features(user: Any, trial: Trial) -> tuple[bool, str]:
    count = FeatureSet.objects.visible_to(user).filter(trial=trial).count()
    return count > 0, f"{count} in this trial." if count else "Import a CSV, or build one from QC metrics."


def _algorithms() -> tuple[bool, str]:
    present = {source_digest(algorithm) for algorithm in ALGORITHMS.values()}
    rows = list(AlgorithmVersion.objects.values_list("state", "code_digest"))
    states = [state for state, code in rows if code in present]
    locked = states.count(AlgorithmVersionState.LOCKED)
    if locked:
        return True, f"{locked} locked here."
    if any(state == AlgorithmVersionState.LOCKED for state, _ in rows):
        return False, "What was locked is not the present code: verify and lock the present version."
    if AlgorithmVersionState.VERIFIED in states:
        return False, "Verified here, not locked yet: an administrator locks it."
    return False, "Reproduce the reference results here, then lock the version."


def _plans(user: Any, trial: Trial) -> tuple[bool, str]:
    states = list(
        HarmonizationPlan.objects.visible_to(user).filter(trial=trial).values_list("state", flat=True)
    )
    locked, drafts = states.count(VersionState.LOCKED), states.count(VersionState.DRAFT)
    if locked:
        return True, f"{locked} locked" + (f", {drafts} draft." if drafts else ".")
    return (
        False,
        f"{drafts} draft: check it, then lock it." if drafts else "Draft one, with the gate beside it.",
    )


def _runs(user: Any, trial: Trial) -> tuple[bool, str]:
    rows = list(HarmonizationRun.objects.visible_to(user).filter(trial=trial).values_list("kind", "state"))
    primary = sum(kind == "primary" and state == RunState.SUCCEEDED for kind, state in rows)
    exploratory = sum(kind == "exploratory" for kind, _ in rows)
    if primary:
        return True, f"{primary} primary succeeded; {exploratory} exploratory."
    return False, "No primary run has succeeded yet." + (
        f" {exploratory} exploratory." if exploratory else ""
    )


def _lock(trial: Trial) -> tuple[bool, str]:
    if trial.lock_state == LockState.LOCKED:
        return True, "The data are locked."
    if trial.lock_state == LockState.FROZEN:
        return False, "Frozen: no new data. Lock when the checklist is complete."
    return False, "Open: see the checklist."
