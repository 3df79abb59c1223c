"""One large run shared among workers: ComBat by blocks of features, in a folder that all of them see.

The worker that has the run leads: it writes the table, asks other workers to help, and takes blocks itself until none
is left, so one worker alone gets through as well. A block is claimed by an advisory lock of the database session,
which a dead worker loses with its connection; it is done when its file stands. Priors are estimated once, over all
features, so the result is the same bits however many workers there are.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from django.conf import settings
from django.db import connection, transaction

from harmonization_app.algorithms import blocks
from harmonization_app.algorithms.base import Dataset, Result
from harmonization_app.algorithms.chain import ChainResult
from harmonization_app.algorithms.environment import one_blas_thread
from harmonization_app.algorithms.model import Model, ModelFiles, load_model, save_model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labels
from harmonization_app.models import HarmonizationRun
from harmonization_app.offline.computation import Computation
from harmonization_app.offline.dataset_files import LABELS, VALUES, labels_json, write_values
from harmonization_app.services.fresh_process import AREA
from hub.core.errors import StorageFull
from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.services import enqueue
from hub.core.storage.blobs import require_free_space, root

HELP_JOB = "harmonization.run_blocks"
SPECIFICATION, CORRECTED = "specification.json", "corrected.npy"
STATISTICS: Final = "statistics"
CORRECTION: Final = "correction"
# Enough for a slow worker to take fewer than the others.
BLOCKS_PER_WORKER = 4
_LOOK_S = 0.2
_PREFIX = "blocks-"

Stage = Literal["statistics", "correction"]


def goes_by_blocks(computation: Computation) -> bool:
    """Return whether a computation is shared: ComBat alone, on a table of HUB_RUN_BLOCK_CELLS cells or more."""
    alone = computation.mode == "fit" and computation.calibration is None
    large = computation.dataset.values.size >= settings.HUB_RUN_BLOCK_CELLS
    return alone and large and computation.algorithm == "combat"


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A run's folder as every worker sees it: the table, what is done with it, and the blocks."""

    folder: Path
    run_id: str
    attempt: int
    task: blocks.Task
    plan: blocks.BlockPlan

    def ready(self, stage: Stage) -> Path:
        """Return the file that stands from when the blocks of a stage may be taken."""
        return self.folder / f"{stage}.ready"

    def done(self, stage: Stage, index: int) -> Path:
        """Return the file that stands when a block is done."""
        return self.folder / f"{stage}-{index}"

    def open_blocks(self, stage: Stage) -> list[int]:
        return [index for index in range(len(self.plan.blocks)) if not self.done(stage, index).exists()]


def compute_by_blocks(context: JobContext, run: HarmonizationRun, computation: Computation) -> ChainResult:
    """Return what `compute` returns, the values mapped from a file without a name that lives as long as they do.

    Raises HarmonizationRefused, MemoryLimitExceeded, StorageFull, and JobCancelled at any block.
    """
    require_free_space()
    for former in root(AREA).glob(f"{_PREFIX}{run.pk}-*"):
        _clear(former)
    folder = _folder(str(run.pk), context.attempt)
    try:
        folder.mkdir()
        _share(folder, computation)
        shared = _open(folder, str(run.pk), context.attempt)
        context.progress(0.3, shared.plan.memory.sentence())
        return _lead(context, shared, computation.dataset)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull("The hub's disk is full: the run's working files could not be written.") from error
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Remove a folder that helpers may be looking at: all that is in it is gone for them at one moment."""
    with suppress(FileNotFoundError):
        gone = folder.rename(folder.with_name(f".{folder.name}.{time.monotonic_ns()}"))
        shutil.rmtree(gone, ignore_errors=True)


def _folder(run_id: str, attempt: int) -> Path:
    """Return the folder of one attempt: who still helps a dead leader says nothing to the next one."""
    return root(AREA) / f"{_PREFIX}{run_id}-{attempt}"


def _share(folder: Path, computation: Computation) -> None:
    write_values(folder / VALUES, computation.dataset.values)
    (folder / LABELS).write_bytes(labels_json(computation.dataset))
    _appear(folder / SPECIFICATION, json.dumps(computation.specification.to_json()).encode())


def _open(folder: Path, run_id: str, attempt: int) -> Shared:
    document = json.loads((folder / LABELS).read_bytes())
    labels = Labels(
        tuple(document["features"]),
        tuple(document["rows"]),
        tuple(document["batches"]),
        {name: tuple(column) for name, column in document["covariates"].items()},
        tuple(document["units"]),
    )
    specification = Specification.from_json(json.loads((folder / SPECIFICATION).read_bytes()))
    task = blocks.prepare(labels, specification)
    shape = (len(labels.rows), len(labels.features))
    limit_bytes = settings.HUB_RUN_MEMORY_LIMIT_MB * 1024**2
    least = BLOCKS_PER_WORKER * (settings.HUB_RUN_HELPERS + 1)
    plan = blocks.plan_blocks(task, shape, limit_bytes, least_blocks=least)
    return Shared(folder, run_id, attempt, task, plan)


def _lead(context: JobContext, shared: Shared, dataset: Dataset) -> ChainResult:
    count = len(shared.plan.blocks)

    def report(stage: Stage, first: float, last: float) -> Callable[[], None]:
        def tell() -> None:
            done = count - len(shared.open_blocks(stage))
            context.progress(first + (last - first) * done / count, f"{stage}: {done} of {count} blocks")

        return tell

    _ask_for_help(shared, STATISTICS)
    _work(shared, STATISTICS, partial(_statistics, shared), report(STATISTICS, 0.3, 0.38), leads=True)
    context.progress(0.38, "estimating the batch effects over all features")
    parts = (
        blocks.load_part(shared.done(STATISTICS, index).read_bytes())
        for index in range(len(shared.plan.blocks))
    )
    model = blocks.join(shared.task, parts)
    whole = blocks.NpyTarget.create(
        shared.folder / CORRECTED, (len(dataset.rows), shared.plan.features), "scans_first"
    )
    _store_model(shared, model)
    _ask_for_help(shared, CORRECTION)
    _work(shared, CORRECTION, partial(_correct, shared), report(CORRECTION, 0.4, 0.5), leads=True)
    whole.finish()
    values = np.load(shared.folder / CORRECTED, mmap_mode="r", allow_pickle=False)
    findings = tuple(shared.task.findings)
    result = Result(values, model, findings, model.iterations, model.flags, model.facts)
    return ChainResult(dataset, None, result)


def _ask_for_help(shared: Shared, stage: Stage) -> None:
    """Say that a stage is ready, and enqueue a job for each further worker that may help."""
    _appear(shared.ready(stage), b"")
    with transaction.atomic():
        for number in range(min(settings.HUB_RUN_HELPERS, len(shared.plan.blocks) - 1)):
            enqueue(
                HELP_JOB,
                key=f"{shared.run_id}:{shared.attempt}:{stage}:{number}",
                arguments={"run_id": shared.run_id, "stage": stage, "attempt": shared.attempt},
            )


def help_run(context: JobContext, *, run_id: str, stage: Stage, attempt: int) -> None:
    """Take blocks of a stage that another worker leads, until none is free. An attempt that is over needs no help."""
    folder = _folder(run_id, attempt)
    try:
        shared = _open(folder, run_id, attempt)
        if not shared.ready(stage).exists():
            return
        do = partial(_statistics if stage == STATISTICS else _correct, shared)
        with one_blas_thread():
            _work(shared, stage, do, lambda: context.progress(0.5, f"helping with {stage}"), leads=False)
    except FileNotFoundError:
        return  # the leader has cleared the folder, or is about to: the stage is over


def _work(
    shared: Shared, stage: Stage, do: Callable[[int], None], tell: Callable[[], None], *, leads: bool
) -> None:
    """Do the blocks that nobody has claimed; who leads waits for the others' and takes over what they leave."""
    while remaining := shared.open_blocks(stage):
        taken = 0
        for index in remaining:
            tell()
            with _claimed(shared.folder.name, stage, index) as mine:
                # A folder that was cleared meanwhile has neither file.
                if mine and not shared.done(stage, index).exists() and shared.ready(stage).exists():
                    do(index)
                    taken += 1
        if not taken and not leads:
            return
        if not taken:
            time.sleep(_LOOK_S)


@contextmanager
def _claimed(folder: str, stage: Stage, index: int) -> Iterator[bool]:
    """Hold the claim on a block, if nobody else does, while the context lasts."""
    name = hashlib.sha256(f"{folder}:{stage}:{index}".encode()).digest()
    key = int.from_bytes(name[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        mine = bool(cursor.fetchone()[0])
    try:
        yield mine
    finally:
        if mine:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def _statistics(shared: Shared, index: int) -> None:
    source = blocks.open_npy(shared.folder / VALUES)
    try:
        part = blocks.block_statistics(shared.task, source, shared.plan.blocks[index])
    finally:
        source.close()
    _appear(shared.done(STATISTICS, index), blocks.save_part(part))


def _store_model(shared: Shared, model: Model) -> None:
    for index, columns in enumerate(shared.plan.blocks):
        files = save_model(blocks.model_block(model, columns))
        (shared.folder / f"model-{index}.json").write_bytes(files.document)
        (shared.folder / f"model-{index}.npz").write_bytes(files.arrays)


def _correct(shared: Shared, index: int) -> None:
    document, arrays = (shared.folder / f"model-{index}.{kind}" for kind in ("json", "npz"))
    part = load_model(ModelFiles(document.read_bytes(), arrays.read_bytes()))
    source = blocks.open_npy(shared.folder / VALUES)
    target = blocks.NpyTarget.reopen(shared.folder / CORRECTED, "scans_first")
    try:
        blocks.apply_block(shared.task, part, source, target, shared.plan.blocks[index])
    finally:
        source.close()
        target.close()
    _appear(shared.done(CORRECTION, index), b"")


def _appear(path: Path, content: bytes) -> None:
    """Write a file that stands whole or not at all, also where two workers write it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_bytes(content)
    temporary.replace(path)
