"""ComBat out of core: a table in a file, harmonized by blocks of features under a memory limit stated beforehand.

In one process `harmonize_blocks` does it all. For several workers the same pieces are stages:

    task = prepare(labels, specification)
    plan = plan_blocks(task, source.shape, memory_limit_bytes=...)
    part = block_statistics(task, source, columns)            # for each of plan.blocks, anywhere; save_part / load_part
    model = join(task, parts)                                 # once; raises HarmonizationRefused as the gate says
    block = model_block(model, columns)                       # save_model / load_model
    target = NpyTarget.create(path, (scans, features))        # once; workers: NpyTarget.reopen(path)
    apply_block(task, block, source, target, columns)         # for each block, anywhere
    target.finish()                                           # once, after the last; or target.discard()

Priors are estimated once over all features, so a result does not depend on the division: the same bits where blocks
begin at multiples of `task.unit` (as those of `plan_blocks` do), else equal to 1e-12 feature SD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.block_files import (
    ArraySource,
    BlockSource,
    BlockTarget,
    FileSource,
    Layout,
    NpyTarget,
    open_npy,
    open_source,
)
from harmonization_app.algorithms.block_memory import MemoryEstimate, MemoryLimitExceeded, estimate_memory
from harmonization_app.algorithms.block_parts import BlockPart, load_part, save_part
from harmonization_app.algorithms.block_stages import (
    Task,
    apply_block,
    block_statistics,
    examine,
    join,
    model_block,
    prepare,
)
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled, Labels
from hub.core.errors import InvalidInput

__all__ = [
    "ArraySource",
    "BlockPart",
    "BlockPlan",
    "BlockSource",
    "BlockTarget",
    "FileSource",
    "Labels",
    "Layout",
    "MemoryEstimate",
    "MemoryLimitExceeded",
    "NpyTarget",
    "Progress",
    "Task",
    "apply_block",
    "block_statistics",
    "estimate_memory",
    "examine",
    "harmonize_blocks",
    "join",
    "load_part",
    "model_block",
    "open_npy",
    "open_source",
    "plan_blocks",
    "prepare",
    "save_part",
]

Progress = Callable[[float, str], None]
STATISTICS_DONE, PRIORS_DONE = 0.45, 0.5


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The memory a run will take and the blocks of features it goes by."""

    memory: MemoryEstimate
    features: int

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Positions among the planned features, each a multiple of the task's unit."""
        width = self.memory.width
        return tuple(
            slice(start, min(start + width, self.features)) for start in range(0, self.features, width)
        )


def plan_blocks(
    task: Task, shape: tuple[int, int], memory_limit_bytes: int | None = None, *, least_blocks: int = 1
) -> BlockPlan:
    """Return the blocks of a table of `shape` (scans, features of the file) with the memory they take.

    `least_blocks` are as many as several workers need to share them evenly.

    Raises MemoryLimitExceeded when no block width keeps within the limit, InvalidInput when labels and table differ.
    """
    labels = task.labels
    if shape[0] != len(labels.rows) or (task.positions is None and shape[1] != len(labels.features)):
        raise InvalidInput(
            f"The table has {shape[0]} scans x {shape[1]} features, its labels name {len(labels.rows)} x "
            f"{len(labels.features)}; they belong together."
        )
    batches = 1 if task.design is None else len(task.design.batches)
    columns = 0 if task.design is None else task.design.covariates.shape[1]
    memory = estimate_memory(
        shape[0],
        len(labels.features),
        batches,
        columns,
        unit=task.unit,
        limit_bytes=memory_limit_bytes,
        least_blocks=least_blocks,
    )
    return BlockPlan(memory, len(labels.features))


def harmonize_blocks(
    source: BlockSource | npt.NDArray[np.floating] | Path,
    target: Path,
    labels: Labelled,
    specification: Specification,
    *,
    progress: Progress | None = None,
    memory_limit_bytes: int | None = None,
    layout: Layout = "features_first",
) -> Model:
    """Harmonize `source` [scans x features] by ComBat into the new NPY file `target` and return the model.

    `progress` is called with the fraction done and what is being done, first with the memory that will be taken; what
    it raises ends the run, and no file is left. Raises HarmonizationRefused as the gate says, MemoryLimitExceeded and
    InvalidInput before anything is read.
    """
    opened = open_source(source)
    try:
        return _harmonize(
            opened, target, labels, specification, progress or _silent, memory_limit_bytes, layout
        )
    finally:
        if opened is not source and isinstance(opened, FileSource):
            opened.close()


def _harmonize(
    opened: BlockSource,
    target: Path,
    labels: Labelled,
    specification: Specification,
    report: Progress,
    memory_limit_bytes: int | None,
    layout: Layout,
) -> Model:
    task = prepare(labels, specification)
    plan = plan_blocks(task, opened.shape, memory_limit_bytes)
    report(0.0, plan.memory.sentence())
    whole = NpyTarget.create(target, (opened.shape[0], plan.features), layout)
    try:
        model = join(task, _statistics(task, opened, plan, report))
        for index, columns in enumerate(plan.blocks):
            fraction = PRIORS_DONE + (1 - PRIORS_DONE) * index / len(plan.blocks)
            report(fraction, f"correcting block {index + 1} of {len(plan.blocks)}")
            apply_block(task, model_block(model, columns), opened, whole, columns)
        report(1.0, "done")
    except BaseException:
        whole.discard()
        raise
    whole.finish()
    return model


def _silent(fraction: float, text: str) -> None:
    """Report nothing."""


def _statistics(task: Task, source: BlockSource, plan: BlockPlan, report: Progress) -> Iterator[BlockPart]:
    for index, columns in enumerate(plan.blocks):
        report(STATISTICS_DONE * index / len(plan.blocks), f"reading block {index + 1} of {len(plan.blocks)}")
        yield block_statistics(task, source, columns)
    report(STATISTICS_DONE, "estimating the batch effects over all features")
