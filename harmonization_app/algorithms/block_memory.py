"""How much memory a harmonization by blocks takes, stated before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from hub.core.errors import HubError

FLOAT_BYTES = 8
# Arrays of [batches x features] that exist together while the priors are estimated: means and squares as gathered,
# standardized shift, scale and squares, and the shrunk shift and scale; where cells are missing also their counts.
ARRAYS_BY_BATCH = 7
# Arrays of [features] beside them: one batch's copies and the steps of its estimates.
ARRAYS_BY_FEATURE = 20
# A block as it is read, and its transpose or the corrected one.
ARRAYS_BY_BLOCK = 3
# The gate's sample of at most 500 features, with the arrays its tests make of it.
SAMPLE_FEATURES, SAMPLE_ARRAYS = 500, 12
# A feature's name and unit in the table, and what a set of names takes while they are checked.
BYTES_PER_NAME = 200
# Interpreter, numerical libraries, the chunks in the cache, and compiling the loops where they are not kept on disk.
BASE_BYTES = 280 << 20
PREFERRED_BLOCK_BYTES = 96 << 20


class MemoryLimitExceeded(HubError):
    """The harmonization would need more memory than it may take; it was not started."""

    code = "memory_limit_exceeded"
    title = "The harmonization needs more memory than it may take"
    http_status = 422


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak bytes of a harmonization by blocks of `width` features, by what they are for."""

    total_bytes: int
    model_bytes: int
    block_bytes: int
    width: int
    blocks: int

    def sentence(self) -> str:
        """Return the estimate for people."""
        total, model, block = map(_gigabytes, (self.total_bytes, self.model_bytes, self.block_bytes))
        return (
            f"{total} of memory at most: {model} for the batches' effects on all features, {block} for blocks of "
            f"{self.width} features; {self.blocks} of them."
        )


def estimate_memory(
    scans: int,
    features: int,
    batches: int,
    columns: int,
    *,
    unit: int,
    missing: bool = True,
    limit_bytes: int | None = None,
    least_blocks: int = 1,
) -> MemoryEstimate:
    """Return the peak memory for a table of `scans` x `features` with so many batches and covariate columns.

    Blocks are multiples of `unit` features (`kernel.block_width`), about 96 MB unless `limit_bytes` asks for less or
    there would be fewer than `least_blocks`, as far as the unit lets them be divided.
    Raises MemoryLimitExceeded where the smallest block does not fit either.
    """
    by_batch = ARRAYS_BY_BATCH + (1 if missing else 0)
    model = features * FLOAT_BYTES * (by_batch * batches + ARRAYS_BY_FEATURE + 2 * columns)
    model += features * (BYTES_PER_NAME + 2 * batches)
    sample = SAMPLE_ARRAYS * FLOAT_BYTES * scans * min(SAMPLE_FEATURES, features)
    fixed = BASE_BYTES + model + sample
    per_feature = ARRAYS_BY_BLOCK * FLOAT_BYTES * scans
    room = PREFERRED_BLOCK_BYTES * ARRAYS_BY_BLOCK
    if limit_bytes is not None:
        room = min(room, limit_bytes - fixed)
    share = -(-features // (least_blocks * unit)) * unit
    width = min(max(room // per_feature // unit, 1) * unit, share, features)
    estimate = MemoryEstimate(
        fixed + width * per_feature, model, width * per_feature, width, -(-features // width)
    )
    if limit_bytes is not None and estimate.total_bytes > limit_bytes:
        raise MemoryLimitExceeded(
            f"{scans} scans x {features} features in {batches} batches need {estimate.sentence()} The limit is "
            f"{_gigabytes(limit_bytes)}. Raise the limit, or harmonize groups of features (pools) by themselves."
        )
    return estimate


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10_000_000 else f"{count / 1e6:.2f} MB"
