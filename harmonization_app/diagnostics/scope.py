"""What is computed on which features, so that time and size stay bounded however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import Dataset, FloatArray, IntArray
from harmonization_app.algorithms.design import select_features
from harmonization_app.algorithms.specification import Specification

# Features written out one by one, and those whose figures are written as arrays.
LISTED, COLUMNS_UP_TO = 400, 2000
# Cells that ranks and medians are taken of; those that harmonizations are repeated on.
RANK_CELLS, REFIT_CELLS = 4_000_000, 250_000
# The least features drawn, whatever the number of scans.
FEWEST_DRAWN = 20
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Part:
    """On how many features (of how many) and scans one part was computed, and how they were chosen."""

    features: int
    of: int
    scans: int
    chosen: str = "all"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw(count: int, most: int, seed: int) -> IntArray:
    """Return at most `most` of `count` positions in order, all or drawn by the seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def draw_features(shape: tuple[int, ...], cells: int, seed: int) -> IntArray:
    """Return the positions of the features of a table [scans x features] that hold at most so many cells."""
    return draw(shape[1], max(FEWEST_DRAWN, cells // max(shape[0], 1)), seed)


def part_of(drawn: Sequence[int] | IntArray, shape: tuple[int, ...], seed: int) -> Part:
    """Return the part that the drawn features of a table [scans x features] make up."""
    chosen = "all" if len(drawn) == shape[1] else f"drawn by the seed {seed}"
    return Part(len(drawn), shape[1], shape[0], chosen)


def narrowed(
    dataset: Dataset, specification: Specification, drawn: IntArray
) -> tuple[Dataset, Specification]:
    """Return the dataset with the features `drawn`, and the plan without the others' names.

    Features that the method's own options name (control features) are kept as well.
    """
    if len(drawn) == len(dataset.features):
        return dataset, specification
    named = _texts(specification.options)
    chosen = {dataset.features[i] for i in drawn}
    names = tuple(name for name in dataset.features if name in chosen or name in named)
    return select_features(dataset, names), plan_for(specification, names)


def plan_for(specification: Specification, features: tuple[str, ...]) -> Specification:
    """Return the plan for these features alone, its pools without the others."""
    kept = set(features)
    pools = tuple(
        replace(pool, features=tuple(name for name in pool.features if name in kept))
        for pool in specification.pools
    )
    return replace(specification, features=features, pools=tuple(pool for pool in pools if pool.features))


def distribution(values: FloatArray) -> dict[str, float] | None:
    """Return the quantiles of the known values; None where there is none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    found = np.quantile(known, QUANTILES)
    return {f"{part:g}": float(value) for part, value in zip(QUANTILES, found, strict=True)}


def column(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Return values for a compact JSON array: six significant digits, None where not known."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values.tolist()]


def median(values: FloatArray) -> float | None:
    """Return the median of the known values; None where there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _texts(value: Any) -> set[str]:
    """Return every text in a nested JSON value."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*(_texts(item) for item in (*value.keys(), *value.values())))
    if isinstance(value, (list, tuple)):
        return set().union(*(_texts(item) for item in value))
    return set()
