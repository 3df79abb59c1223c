"""How much memory a run takes, stated before it starts; over the limit it is refused.

Measured as peak resident memory beyond the interpreter's, in bytes per cell of the table over 8, for 800 to 1,000
scans of 1,500 to 2,000 features in 10 batches: reading a CSV 18.2 and the file's own bytes 2.4 twice; from the gate
to the stored result 12 to 15 for ComBat and its kind, 18 for CovBat (its covariance step holds copies). Whatever was
not measured takes the greatest factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from harmonization_app.algorithms.block_memory import estimate_memory as estimate_blocks
from harmonization_app.algorithms.least_squares import WIDEST_BLOCK
from harmonization_app.models import FeatureSet
from harmonization_app.plan_document import PlanDocument
from hub.core.errors import InvalidInput

CELL_BYTES = 8
BASE_BYTES = 300 << 20
READING_CSV, READING_MATRIX = 24, 2
MEASURED_FACTOR, OTHER_FACTOR = 16, 20
MEASURED = frozenset(
    {
        "combat",
        "control-features",
        "dcombat",
        "global-scaling",
        "longcombat",
        "nested",
        "neurocombat",
        "pairwise",
        "travelling-subject",
        "z-score",
    }
)


class RunTooLarge(InvalidInput):
    code = "run_too_large"
    title = "The run would need more memory than it may take"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak bytes of a run, the limit of this hub, and how the figure was come by."""

    bytes: int
    limit_bytes: int
    how: str

    @property
    def fits(self) -> bool:
        return self.bytes <= self.limit_bytes

    @property
    def sentence(self) -> str:
        return (
            f"The run needs about {self.bytes >> 20} MB of memory ({self.how}); {self.limit_bytes >> 20} MB are"
            " allowed here."
        )

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "limit_bytes": self.limit_bytes, "how": self.how}


def estimate_memory(
    parsed: PlanDocument, feature_set: FeatureSet, *, repeated: bool = False
) -> MemoryEstimate:
    """Return the memory of a run of a plan on a feature set, read from their sizes alone.

    A run that is `repeated` is computed whole in a process of its own.
    """
    if is_shared(parsed, feature_set):
        return _by_blocks(parsed, feature_set, repeated)
    scans, features = feature_set.row_count, feature_set.column_count
    planned = len(parsed.specification.features) or features
    whole = feature_set.origin == FeatureSet.Origin.MATRIX
    reading = READING_MATRIX if whole else READING_CSV
    methods = {parsed.algorithm, *parsed.companions}
    working = MEASURED_FACTOR if methods <= MEASURED else OTHER_FACTOR
    greatest = CELL_BYTES * scans * max(reading * features, features + working * planned)
    how = f"{scans} scans of {features} features, {planned} of them harmonized, at most {max(reading, working)} tables"
    return MemoryEstimate(BASE_BYTES + greatest, settings.HUB_RUN_MEMORY_LIMIT_MB << 20, how)


def is_shared(parsed: PlanDocument, feature_set: FeatureSet) -> bool:
    """Return whether a run goes by blocks from a table that stays on disk."""
    cells = feature_set.row_count * feature_set.column_count
    alone = parsed.algorithm == "combat" and parsed.calibration is None and not parsed.companions
    matrix = feature_set.origin == FeatureSet.Origin.MATRIX
    return alone and matrix and cells >= settings.HUB_RUN_BLOCK_CELLS


def _by_blocks(parsed: PlanDocument, feature_set: FeatureSet, repeated: bool) -> MemoryEstimate:
    scans = feature_set.row_count
    planned = len(parsed.specification.features) or feature_set.column_count
    batches = len({row.get(parsed.batch) for row in feature_set.rows})
    columns = len(feature_set.rows[0])
    own = estimate_blocks(scans, planned, batches, columns, unit=WIDEST_BLOCK)
    how = f"{scans} scans of {planned} features by blocks of {own.width}, the table on disk"
    result = 0
    if repeated:
        result = CELL_BYTES * scans * planned
        how += ", and the whole result in the process that repeats the run"
    return MemoryEstimate(BASE_BYTES + own.total_bytes + result, settings.HUB_RUN_MEMORY_LIMIT_MB << 20, how)


def require_memory(estimate: MemoryEstimate) -> None:
    """Raise RunTooLarge where the estimate is over the limit."""
    if not estimate.fits:
        raise RunTooLarge(
            f"{estimate.sentence} Nothing was started. Plan a run for each pool of features, import the table as a"
            " matrix, or have the limit raised (HUB_RUN_MEMORY_LIMIT_MB)."
        )
