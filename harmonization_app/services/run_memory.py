"""How much memory a run takes, stated before it starts; over the limit it is refused.

Stated is what a run holds by itself at its peak, from reading the table to storing the result; pages of files that are
mapped (a stored matrix, a result made by blocks) are not in it, since the system takes them back whenever it needs
them. It is the sum of

- a base: interpreter and libraries (200 MB, of these 36 for the compiled loops, and 63 more while they are compiled,
  at the first start), and what gate and diagnosis take whatever the size (100 to 250 MB);
- arrays of [features], of [batches x features] and of [covariate columns x features]: statistics, model, effects;
- copies of the table: those of reading a CSV, or those that the method and its second computation make.

Figures are peaks of whole runs (anonymous resident memory beyond the interpreter's) on 300 to 1,000 scans of 4,000 to
10,000 features (1,000 to 4,000 where a second computation is slow), and by blocks of 150,000 to 1,000,000 features;
test_run_memory.py holds runs to what is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from django.conf import settings

from harmonization_app.algorithms.block_memory import estimate_memory as estimate_blocks
from harmonization_app.algorithms.least_squares import WIDEST_BLOCK
from harmonization_app.algorithms.specification import Specification
from harmonization_app.models import FeatureSet
from harmonization_app.plan_document import PlanDocument
from hub.core.errors import InvalidInput

CELL_BYTES = 8
BASE_BYTES = 600 << 20
# Copies of the table while a CSV is read (a number of 17 digits is a text of 72 bytes), and what stays of that after.
READING_CSV, AFTER_READING = 18, 6
# Copies of the planned features that a method or its second computation holds at once, the result among them.
METHOD_TABLES: Mapping[str, int] = MappingProxyType(
    {
        "combat": 3,
        "combat-gam": 5,
        "combat-robust": 6,
        "combat-spline": 4,
        "control-features": 4,
        "covbat": 15,
        "dcombat": 4,
        "functional-normalization": 11,
        "global-scaling": 4,
        "gmm-combat": 11,
        "longcombat": 12,
        "nested": 6,
        "nested-search": 25,
        "neurocombat": 9,
        "pairwise": 5,
        "sva": 9,
        "travelling-subject": 5,
        "z-score": 5,
    }
)
GREATEST_TABLES = max(METHOD_TABLES.values())
# Of these methods also arrays of [features]: three of 512 points of a density.
METHOD_ARRAYS: Mapping[str, int] = MappingProxyType({"sva": 3 * 512})
CALIBRATION_TABLES = 3
# Arrays of [batches x features] and [columns x features] that exist together, and those of [features], names included.
ARRAYS_BY_BATCH, ARRAYS_BY_COLUMN, ARRAYS_BY_FEATURE = 14, 16, 105


class RunTooLarge(InvalidInput):
    code = "run_too_large"
    title = "The run would need more memory than it may take"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak bytes of a run, the limit of this hub, how the figure was come by, and what would need less."""

    bytes: int
    limit_bytes: int
    how: str
    advice: str = ""

    @property
    def fits(self) -> bool:
        return self.bytes <= self.limit_bytes

    @property
    def sentence(self) -> str:
        stated = (
            f"The run needs at most {self.bytes >> 20} MB of memory ({self.how}); {self.limit_bytes >> 20} MB are"
            " allowed here."
        )
        return stated if self.fits else f"{stated} {self.advice}"

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "limit_bytes": self.limit_bytes, "how": self.how}


def estimate_memory(parsed: PlanDocument, feature_set: FeatureSet, *, whole: bool = False) -> MemoryEstimate:
    """Return the memory of a run of a plan on a feature set, read from their sizes alone.

    A repetition, and scans corrected by a frozen model, are computed `whole` where a fit goes by blocks.
    """
    shared = is_shared(parsed, feature_set)
    needed, how = (_by_blocks if shared else _in_memory)(parsed, feature_set)
    if whole and shared:
        needed += _table_bytes(parsed, feature_set)
        how += ", and the whole result, which is not made by blocks here"
    limit_bytes = settings.HUB_RUN_MEMORY_LIMIT_MB << 20
    return MemoryEstimate(needed, limit_bytes, how, _advice(parsed, feature_set, shared))


def is_shared(parsed: PlanDocument, feature_set: FeatureSet) -> bool:
    """Return whether a run goes by blocks from a table that stays on disk."""
    cells = feature_set.row_count * feature_set.column_count
    alone = parsed.algorithm == "combat" and parsed.calibration is None and not parsed.companions
    return alone and _is_matrix(feature_set) and cells >= settings.HUB_RUN_BLOCK_CELLS


def require_memory(estimate: MemoryEstimate) -> None:
    """Raise RunTooLarge where the estimate is over the limit."""
    if not estimate.fits:
        raise RunTooLarge(f"{estimate.sentence} Nothing was started.")


def _in_memory(parsed: PlanDocument, feature_set: FeatureSet) -> tuple[int, str]:
    planned, scans, features = _planned(parsed, feature_set), feature_set.row_count, feature_set.column_count
    methods = (parsed.algorithm, *parsed.companions)
    working = max(method_bytes(name, scans, planned) for name in methods)
    tables, reading = max(METHOD_TABLES.get(name, GREATEST_TABLES) for name in methods), 0
    if parsed.calibration is not None:
        tables += CALIBRATION_TABLES
        working += CELL_BYTES * scans * planned * CALIBRATION_TABLES
    if not _is_matrix(feature_set):
        working += CELL_BYTES * scans * features * AFTER_READING
        reading = CELL_BYTES * scans * features * READING_CSV
    needed = BASE_BYTES + _array_bytes(parsed, feature_set) + max(reading, working)
    how = f"{scans} scans of {features} features, {planned} of them harmonized, {tables} copies of these"
    return needed, how


def method_bytes(algorithm: str, scans: int, features: int) -> int:
    """Return what a method and its second computation take."""
    tables = METHOD_TABLES.get(algorithm, GREATEST_TABLES) * scans
    return CELL_BYTES * features * (tables + METHOD_ARRAYS.get(algorithm, 0))


def _by_blocks(parsed: PlanDocument, feature_set: FeatureSet) -> tuple[int, str]:
    scans, planned = feature_set.row_count, _planned(parsed, feature_set)
    batches, columns = _batches(parsed, feature_set), _columns(parsed.specification, feature_set)
    blocks = estimate_blocks(scans, planned, batches, columns, unit=WIDEST_BLOCK)
    needed = max(blocks.total_bytes, BASE_BYTES + _array_bytes(parsed, feature_set))
    return needed, f"{scans} scans of {planned} features by blocks of {blocks.width}, the table on disk"


def _array_bytes(parsed: PlanDocument, feature_set: FeatureSet) -> int:
    """Return the bytes of what is kept by feature, whatever the number of scans."""
    batches, columns = _batches(parsed, feature_set), _columns(parsed.specification, feature_set)
    arrays = ARRAYS_BY_BATCH * batches + ARRAYS_BY_COLUMN * columns + ARRAYS_BY_FEATURE
    return CELL_BYTES * feature_set.column_count * arrays


def _advice(parsed: PlanDocument, feature_set: FeatureSet, shared: bool) -> str:
    """Return what would need less memory."""
    advice = ["Plan a run for each pool of features"]
    if not _is_matrix(feature_set):
        advice.append("import the table as a matrix, which stays on disk")
    elif not shared:
        advice.append(
            "plan combat without calibration and without another algorithm beside it, which goes by blocks of features"
        )
    return f"{', '.join(advice)}, or have the limit raised (HUB_RUN_MEMORY_LIMIT_MB)."


def _is_matrix(feature_set: FeatureSet) -> bool:
    return feature_set.origin == FeatureSet.Origin.MATRIX


def _planned(parsed: PlanDocument, feature_set: FeatureSet) -> int:
    return len(parsed.specification.features) or feature_set.column_count


def _table_bytes(parsed: PlanDocument, feature_set: FeatureSet) -> int:
    return CELL_BYTES * feature_set.row_count * _planned(parsed, feature_set)


def _batches(parsed: PlanDocument, feature_set: FeatureSet) -> int:
    """Return the batches that are corrected: those of the batch column, or the levels of all batch variables."""
    columns = parsed.specification.batch_variables or (parsed.batch,)
    return sum(len({row.get(column) for row in feature_set.rows}) for column in columns)


def _columns(specification: Specification, feature_set: FeatureSet) -> int:
    """Return the columns of the design: one of a number, one less than its levels of a category."""
    levels = {
        covariate.name: len({row.get(covariate.name) for row in feature_set.rows})
        for covariate in specification.covariates
        if covariate.kind == "categorical"
    }
    return sum(max(1, levels.get(covariate.name, 2) - 1) for covariate in specification.covariates)
