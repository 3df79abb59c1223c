"""What proves a run: its cross-check by a second implementation, and the equality of a repetition."""

from __future__ import annotations

import os
from typing import Any

from harmonization_app.algorithms.base import Dataset, Finding, Result
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, ChainResult
from harmonization_app.algorithms.phantom import PhantomCalibration
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.algorithms.verification.crosscheck import cross_check
from harmonization_app.models import HarmonizationRun
from harmonization_app.offline.computation import Outcome, compare
from harmonization_app.services.harmonized_table import harmonized_values
from hub.core.canonical import digest
from hub.core.errors import Conflict, InvalidInput

NOT_COMPUTED, DIFFERS = "cross_check_not_computed", "cross_check_differs"


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
    main = _cross_check(chain.dataset, chain.main, get_algorithm(algorithm).tolerance_sd)
    if chain.calibration is None:
        return main
    return {**main, CALIBRATION: _cross_check(raw, chain.calibration, PhantomCalibration.tolerance_sd)}


def _cross_check(dataset: Dataset, result: Result, tolerance_sd: float) -> dict[str, Any]:
    try:
        return cross_check(dataset, result, tolerance_sd).to_json()
    except InvalidInput as error:
        return {"passed": None, "reason": error.detail}


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
    former = harmonized_values(original, len(chain.main.model.features))
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
