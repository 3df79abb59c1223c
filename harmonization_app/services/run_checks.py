"""What proves a run: its cross-check by a second implementation, and the equality of a repetition."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harmonization_app.algorithms.base import Dataset, Finding
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, ChainResult
from harmonization_app.algorithms.phantom import PhantomCalibration
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.algorithms.verification.crosscheck import (
    CrossCheck,
    cross_check,
    cross_check_applied,
)
from harmonization_app.models import HarmonizationRun
from harmonization_app.offline.computation import Outcome, compare
from harmonization_app.services.harmonized_table import harmonized_table
from hub.core.canonical import digest
from hub.core.errors import Conflict, InvalidInput

NOT_COMPUTED, DIFFERS = "cross_check_not_computed", "cross_check_differs"
UNREADABLE = "The scans that the model was estimated on could not be read again."
CALIBRATED = (
    "Both steps were computed again for these scans; the scans that the main step was estimated on were calibrated for"
    " that by the stored calibration, which was itself computed again in the run that estimated it."
)


class StoredInputDiffers(Conflict):
    code = "stored_input_differs"
    title = "The stored input is not the one that the run was given"


def require_same_input(run: HarmonizationRun, digest: str) -> None:
    """Raise StoredInputDiffers unless `digest` is that of what `run` was given."""
    if digest != run.input_digest:
        raise StoredInputDiffers(
            f"What is stored of run {run.pk} gives another input ({digest[:12]}…) than the run had"
            f" ({run.input_digest[:12]}…). Nothing was repeated. Tell the administrator."
        )


def check_again(algorithm: str, raw: Dataset, chain: ChainResult) -> dict[str, Any]:
    """Return the comparison of each step with its plain implementation; that of the main step at the top level.

    `passed` is None with a `reason` where the plain implementation cannot compute the case.
    """
    tolerance_sd = get_algorithm(algorithm).tolerance_sd
    main = _compared(cross_check, chain.dataset, chain.main, tolerance_sd)
    if chain.calibration is None:
        return main
    tolerance_sd = PhantomCalibration.tolerance_sd
    return {**main, CALIBRATION: _compared(cross_check, raw, chain.calibration, tolerance_sd)}


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What a frozen model was estimated on: its scans `raw` and as the main step saw them, and each added batch's."""

    raw: Dataset
    seen: Dataset
    added: tuple[Dataset, ...]


def check_applied(algorithm: str, raw: Dataset, chain: ChainResult, learnt: Learnt) -> dict[str, Any]:
    """Return what `check_again` returns, for scans `raw` corrected by a model estimated on others."""
    tolerance_sd = get_algorithm(algorithm).tolerance_sd
    main = _compared(cross_check_applied, learnt.seen, chain.dataset, chain.main, tolerance_sd, learnt.added)
    if chain.calibration is None:
        return main
    tolerance_sd = PhantomCalibration.tolerance_sd
    own = _compared(cross_check_applied, learnt.raw, raw, chain.calibration, tolerance_sd)
    if "scope" in main:
        main["scope"] = f"{main['scope']} {CALIBRATED}".strip()
    return {**main, CALIBRATION: own}


def not_computed(reason: str) -> dict[str, Any]:
    """Return the comparison that could not be made."""
    return {"passed": None, "reason": reason}


def _compared(check: Callable[..., CrossCheck], *given: Any) -> dict[str, Any]:
    try:
        return check(*given).to_json()
    except InvalidInput as error:
        return not_computed(error.detail)


def cross_check_findings(check: dict[str, Any], *, primary: bool) -> list[Finding]:
    """Return a warning for each step not computed a second time; one that differs stops a primary run."""
    findings = []
    for step in (CALIBRATION, MAIN):
        own = check.get(CALIBRATION) if step == CALIBRATION else check
        if own is None or own["passed"]:
            continue
        if own["passed"] is None:
            message = (
                f"The {_NAMES[step]} was not computed a second time, so nothing confirms it: {own['reason']}"
            )
            findings.append(Finding(NOT_COMPUTED, "warn", message))
            continue
        message = (
            f"The second computation of the {_NAMES[step]} differs by {_sd(own['max_difference_sd'])} feature SD;"
            f" {own['tolerance_sd']:.0e} is allowed."
        )
        if own.get("iterations_equal") is False:
            message += " The steps of shrinkage differ in number."
        findings.append(Finding(DIFFERS, "stop" if primary else "warn", message))
    return findings


_NAMES = {CALIBRATION: "calibration", MAIN: "result"}


def _sd(difference: float | None) -> str:
    return "an unknown number of" if difference is None else f"{difference:.3g}"


def equality_of(run: HarmonizationRun, outcome: Outcome) -> dict[str, Any]:
    """Return how a repetition compares with its original: equal bits, else the largest difference in feature SD.

    `process` and `worker` are the ids of the process that computed it and of the one that asked for it.
    """
    original = HarmonizationRun.objects.get(reruns=run)
    chain = outcome.result
    former = harmonized_table(original).values
    iterations = original.summary.get("iterations", {})
    values_digest = original.summary.get("values_digest", "")
    same = digest(original.environment) == outcome.document["environment_digest"]
    return {
        "of": str(original.pk),
        **compare(former, iterations, chain, values_digest),
        "process": outcome.document["pid"],
        "worker": os.getpid(),
        "environment_equal": same,
    }
