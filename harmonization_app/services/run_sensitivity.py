"""The sensitivity analyses that a plan names, carried out beside its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harmonization_app.algorithms.chain import ChainResult
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.diagnostics.sensitivity import SensitivityAnalysis, analyse
from harmonization_app.plan_document import PlanDocument, PlannedAnalysis

SHORT = ("name", "kind", "algorithm", "state", "reason")


def analyse_sensitivity(
    parsed: PlanDocument, chain: ChainResult, progress: Callable[[float, str], None]
) -> list[dict[str, Any]]:
    """Return each planned analysis in the form of the diagnostics; `progress` gets the share done before each."""
    algorithm = get_algorithm(parsed.algorithm)
    found: list[dict[str, Any]] = []
    for number, planned in enumerate(parsed.sensitivity):
        progress(number / len(parsed.sensitivity), f"sensitivity: {planned.name.replace('_', ' ')}")
        found += analyse([_analysis(planned)], algorithm, chain.dataset, parsed.specification, chain.main)
    return found


def in_short(analyses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the run's own row keeps of its analyses: which there were, and whether each was carried out."""
    return [{name: item.get(name) for name in SHORT} for item in analyses]


def _analysis(planned: PlannedAnalysis) -> SensitivityAnalysis:
    algorithm = get_algorithm(planned.algorithm) if planned.algorithm else None
    return SensitivityAnalysis(planned.kind, planned.name, algorithm, planned.specification)
