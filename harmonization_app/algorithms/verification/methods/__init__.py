"""Plain second implementations of the methods other than ComBat, and the inputs of their packaged cases.

Each module has `correct(fitted, specification, scans)`, which fits on one dataset and returns the corrected
values of another (often the same), and `cases()`, the inputs of its suite. They share nothing with the methods
but the values that travel; they are slow and written to be read beside the papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Protocol

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """What goes into one case; `new` holds scans to correct by the fitted model, if any."""

    name: str
    dataset: Dataset
    specification: Specification
    new: Dataset | None = None


class PlainMethod(Protocol):
    """A second implementation of one method."""

    def correct(self, fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray: ...

    def cases(self) -> Iterable[Input]: ...


_MODULES: Mapping[str, str] = MappingProxyType(
    {
        "covbat": "covbat",
        "combat-gam": "combat_gam",
        "combat-robust": "combat_robust",
        "combat-spline": "combat_spline",
        "control-features": "control_features",
        "dcombat": "dcombat",
        "functional-normalization": "functional_normalization",
        "gmm-combat": "gmm_combat",
        "global-scaling": "baselines_scaling",
        "longcombat": "longcombat",
        "nested": "nested",
        "nested-search": "nested_search",
        "pairwise": "pairwise",
        "phantom-calibration": "phantom",
        "sva": "sva",
        "travelling-subject": "travelling",
        "z-score": "baselines_zscore",
    }
)


def has_plain_method(algorithm_id: str) -> bool:
    """Return whether a method has its second implementation here."""
    return algorithm_id in _MODULES


def plain_method(algorithm_id: str) -> PlainMethod:
    """Return the second implementation of a method. Raises KeyError for one that has none here."""
    module: PlainMethod = import_module(f"{__name__}.{_MODULES[algorithm_id]}")  # type: ignore[assignment]
    return module


def method_ids() -> tuple[str, ...]:
    """Return the methods that have their second implementation here."""
    return tuple(_MODULES)
