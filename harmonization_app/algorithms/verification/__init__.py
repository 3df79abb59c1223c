"""Verification of an algorithm on this machine: the packaged suite, and the reference set where it is
given.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harmonization_app.algorithms.base import Algorithm, Dataset, FloatArray, HarmonizationRefused, Result
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.crosscheck import (
    CrossCheck,
    cross_check,
    cross_check_applied,
    max_difference_sd,
)
from harmonization_app.algorithms.verification.reference import reference_cases
from harmonization_app.algorithms.verification.suite import load_suite
from hub.core.errors import HubError

__all__ = [
    "CaseResult",
    "CrossCheck",
    "VerificationReport",
    "cross_check",
    "cross_check_applied",
    "max_difference_sd",
    "verify",
]

SUITE_TOLERANCE_SD = 1e-9


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: largest difference in feature SD against its tolerance.

    `refused` tells that the method rightly refuses what it cannot do; such a case is not compared and does not
    count. `reason` says why there is no difference.
    """

    case: str
    max_difference_sd: float | None
    tolerance_sd: float
    passed: bool
    refused: bool = False
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All cases of one algorithm version; `passed` needs a compared case and no failure.

    `with_reference_set` tells that published cases are among them; a method without any has only its packaged suite.
    """

    algorithm: str
    version: str
    cases: tuple[CaseResult, ...]
    with_reference_set: bool

    @property
    def passed(self) -> bool:
        compared = [case for case in self.cases if not case.refused]
        return bool(compared) and all(case.passed for case in compared)

    def to_json(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "version": self.version,
            "passed": self.passed,
            "with_reference_set": self.with_reference_set,
            "cases": [case.to_json() for case in self.cases],
        }


def verify(algorithm_id: str, reference_dir: Path | None = None) -> VerificationReport:
    """Run the packaged suite, and the reference set in `reference_dir`, on a registered algorithm.

    Raises NotFound for an unknown algorithm, InvalidInput for a folder without the method's reference results.
    """
    from harmonization_app.algorithms.registry import get_algorithm

    algorithm = get_algorithm(algorithm_id)
    cases = [
        _compare(
            algorithm, f"suite/{case.name}", case.dataset, case.specification, case.expected, None, case.new
        )
        for case in load_suite(algorithm.id)
    ]
    for reference in reference_cases(reference_dir, algorithm.id) if reference_dir else ():
        dataset, new = reference.dataset, None
        if reference.train:
            dataset, new = dataset.select(reference.train), dataset.select(reference.test)
        tolerance = reference.tolerance_sd
        name = f"reference/{reference.name}"
        cases.append(
            _compare(algorithm, name, dataset, reference.specification, reference.expected, tolerance, new)
        )
    published = any(case.case.startswith("reference/") for case in cases)
    return VerificationReport(algorithm.id, algorithm.version, tuple(cases), published)


def _compare(
    algorithm: Algorithm,
    name: str,
    dataset: Dataset,
    specification: Specification,
    expected: FloatArray,
    tolerance: float | None,
    new: Dataset | None,
) -> CaseResult:
    limit = max(tolerance or SUITE_TOLERANCE_SD, algorithm.tolerance_sd)
    try:
        result = _run(algorithm, dataset, specification, new)
    except HarmonizationRefused as refusal:
        stopping = [finding.code for finding in refusal.findings if finding.severity == "stop"]
        rightly = bool(stopping) and all(code in algorithm.own_refusals for code in stopping)
        return CaseResult(name, None, limit, False, rightly, refusal.detail)
    except HubError as error:
        return CaseResult(name, None, limit, False, False, error.detail)
    difference = max_difference_sd(result.values, expected, (new or dataset).values)
    return CaseResult(name, difference, limit, difference <= limit)


def _run(algorithm: Algorithm, dataset: Dataset, specification: Specification, new: Dataset | None) -> Result:
    if new is None:
        return algorithm.harmonize(dataset, specification)
    return algorithm.apply(algorithm.fit(dataset, specification), new)
