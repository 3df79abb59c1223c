"""ComBat in stages that separate workers can take: statistics of each block, one join, correction of each block.

    (block_statistics of block i) x N  ->  join  ->  (apply_block of block i) x N

Priors are estimated once, over all features, in `join`: a result does not depend on how the features are divided. Each
stage's output travels as bytes (`block_parts`, `model.save_model`). The gate is the one of a dataset in memory, its
findings the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from harmonization_app.algorithms.base import (
    Dataset,
    Finding,
    IntArray,
    require_no_stops,
)
from harmonization_app.algorithms.blas import single_thread
from harmonization_app.algorithms.block_files import BlockSource, BlockTarget, SelectedSource
from harmonization_app.algorithms.block_parts import Assembly, BlockPart
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import Design, build_design, feature_positions
from harmonization_app.algorithms.kernel import block_width, group_rows
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled, Labels
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.gate_products import sample_positions
from harmonization_app.diagnostics.gate_summary import (
    Summary,
    summarize_values,
    without_batches,
)
from harmonization_app.diagnostics.gate_values import check_features, check_values
from harmonization_app.diagnostics.wording import stops
from hub.core.canonical import digest
from hub.core.errors import InvalidInput


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A table's labels reduced to the planned features, its design, and the findings on the labels.

    `identity` is the digest of all that parts of one run have in common. `design` is None where labels stop the run:
    then the values are looked at without batches, for the gate's sake.
    """

    labels: Labels
    specification: Specification
    design: Design | None
    findings: tuple[Finding, ...]
    positions: IntArray | None
    identity: str

    @property
    def unit(self) -> int:
        """Features whose multiples a block should begin at, so that every division gives the same bits."""
        codes = np.zeros(len(self.labels.rows), dtype=np.int64) if self.design is None else self.design.codes
        return block_width(group_rows(codes, int(codes.max(initial=0)) + 1))

    def chosen(self, source: BlockSource) -> BlockSource:
        """Return the planned features of `source`."""
        return source if self.positions is None else SelectedSource(source, self.positions)


def prepare(labels: Labelled, specification: Specification) -> Task:
    """Return the task. Raises HarmonizationRefused where parameters or names are at fault: then no cell is read."""
    findings = check_parameters(Combat().parameters_schema(), specification)
    findings += check_features(labels, specification)
    require_no_stops(findings)
    chosen, positions = _select(labels, specification.features)
    findings += gate.check_labels(chosen, specification)
    design = None if stops(findings) else build_design(chosen, specification)
    return Task(chosen, specification, design, tuple(findings), positions, _identity(chosen, specification))


def block_statistics(task: Task, source: BlockSource, columns: slice) -> BlockPart:
    """Return the part of the features `columns` (positions among the planned features); one read of that block."""
    values = task.chosen(source).read(columns)
    if values.shape[0] != len(task.labels.rows):
        raise InvalidInput(
            f"The table has {values.shape[0]} scans, its labels {len(task.labels.rows)} rows; they belong together."
        )
    with single_thread():
        if task.design is None:
            summary = without_batches(values)
        else:
            grouping = group_rows(task.design.codes, len(task.design.batches))
            summary = summarize_values(values, task.design, grouping)
    every = sample_positions(len(task.labels.features))
    sampled = every[(every >= columns.start) & (every < columns.stop)]
    return BlockPart(task.identity, columns, summary, sampled, values[:, sampled - columns.start])


def join(task: Task, parts: Iterable[BlockPart]) -> Model:
    """Return the model from the parts of all blocks, in any order; its `facts` hold the findings of the gate.

    Raises HarmonizationRefused when the gate stops, InvalidInput when parts lack or are of another run.
    """
    findings, summary = examine(task, parts)
    require_no_stops(findings)
    assert task.design is not None  # a task without a design has stops
    with single_thread():
        return Combat().conclude(task.labels, task.specification, task.design, summary.statistics, findings)


def examine(task: Task, parts: Iterable[BlockPart]) -> tuple[tuple[Finding, ...], Summary]:
    """Return all findings of the gate on the whole table, stops first, and the parts put together."""
    summary, sample = _assemble(task, parts)
    findings = list(task.findings)
    with single_thread():
        if task.design is None:
            findings += check_values(task.labels, task.specification, summary, None)
        else:
            findings += gate.check_summary(
                task.labels, task.design, task.specification, lambda: summary, sample
            )
    return gate.stops_first(findings), summary


def model_block(model: Model, columns: slice) -> Model:
    """Return the model of the features `columns` alone: what a worker needs to correct that block.

    Saved and loaded like any model (`model.save_model`). Its priors and counts of steps stay with the whole model.
    """
    per_feature = ("gamma_star", "delta_star", "pooled_variance", "grand_mean", "coefficients")
    arrays = {name: model.arrays[name][..., columns] for name in per_feature}
    arrays |= {name: model.arrays[name] for name in ("centre", "scale")}
    return replace(
        model,
        specification=replace(model.specification, features=(), pools=()),
        features=model.features[columns],
        units=model.units[columns],
        arrays=arrays,
        iterations={},
        flags={},
        facts={"first_feature": columns.start},
    )


def apply_block(task: Task, part: Model, source: BlockSource, target: BlockTarget, columns: slice) -> None:
    """Correct the features `columns` by their `model_block` and write them at their place in `target`.

    Raises HarmonizationRefused when a cell is infinite, as the gate of a dataset in memory does.
    """
    labels = task.labels
    block = Dataset(
        task.chosen(source).read(columns),
        part.features,
        labels.rows,
        labels.batches,
        labels.covariates,
        part.units,
    )
    require_no_stops(gate.check_apply(part, block))
    with single_thread():
        corrected = Combat().correct(part, block, ()).values
    target.write(columns, corrected)


def _assemble(task: Task, parts: Iterable[BlockPart]) -> tuple[Summary, Dataset]:
    labels = task.labels
    assembly = Assembly(task.identity, len(labels.rows), len(labels.features))
    for part in parts:
        assembly.add(part)
    summary, sampled, values = assembly.finish()
    names = tuple(labels.features[i] for i in sampled)
    units = tuple(labels.units[i] for i in sampled)
    return summary, Dataset(values, names, labels.rows, labels.batches, labels.covariates, units)


def _identity(labels: Labels, specification: Specification) -> str:
    names = hashlib.sha256("\0".join(labels.features).encode()).hexdigest()
    return digest(
        {
            "specification": specification.to_json(),
            "features": names,
            "rows": list(labels.rows),
            "batches": list(labels.batches),
            "covariates": {
                name: [repr(value) for value in labels.covariates[name]]
                for name in specification.columns
                if name in labels.covariates
            },
        }
    )


def _select(labels: Labelled, names: tuple[str, ...]) -> tuple[Labels, IntArray | None]:
    if not names or names == labels.features:
        return Labels(labels.features, labels.rows, labels.batches, labels.covariates, labels.units), None
    positions = feature_positions(labels, names)
    units = tuple(labels.units[i] for i in positions)
    return Labels(names, labels.rows, labels.batches, labels.covariates, units), positions
