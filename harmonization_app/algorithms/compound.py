"""Several fits of ComBat kept as one model: of pairs of batches, or one after the other on what the last one left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import (
    Algorithm,
    BoolArray,
    Dataset,
    Finding,
    HarmonizationRefused,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import batch_codes
from harmonization_app.algorithms.kernel import fit_statistics, group_rows
from harmonization_app.algorithms.location_scale import not_estimable
from harmonization_app.algorithms.model import CovariateCoding, Model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.gate_summary import take_statistics

Labels = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One fit of a compound: its name (a batch variable, a moving batch) and its model."""

    name: str
    model: Model


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One ComBat in a sequence: the name and the labels of the batches it corrects, and its plan."""

    name: str
    batches: Labels
    specification: Specification


def fit_steps(steps: Sequence[Step], dataset: Dataset) -> tuple[Part, ...]:
    """Return ComBat of each step, one after the other. Raises HarmonizationRefused."""
    parts, current = [], dataset
    for step in steps:
        part, current = fit_step(step, current, constant_cells(step, dataset))
        parts.append(part)
    return tuple(parts)


def fit_step(step: Step, dataset: Dataset, constant: BoolArray) -> tuple[Part, Dataset]:
    """Return ComBat of one step, fitted on what the steps before it left, and the values it leaves.

    Where `constant` [batches x features] the scale stays: what varies there are the corrections of the steps before,
    and brought to the spread of the other batches they would pass for measurements.
    """
    own, combat = replace(dataset, batches=step.batches), Combat()
    design = combat.design(own, step.specification)
    statistics = take_statistics(own, design)
    statistics = replace(statistics, constant=statistics.constant | constant)
    model = combat.conclude(own, step.specification, design, statistics, ())
    return Part(step.name, model), dataset.with_values(combat.correct(model, own, ()).values)


def constant_cells(step: Step, table: Dataset) -> BoolArray:
    """Return where a feature of the table as measured has one value in a batch of the step [batches x features].

    Raises HarmonizationRefused where the batches determine a feature: nothing of it is left once they are corrected.
    """
    batches, codes = batch_codes(replace(table, batches=step.batches), step.specification)
    nothing = np.empty((len(codes), 0))
    statistics = fit_statistics(table.values, group_rows(codes, len(batches)), nothing)
    determined = statistics.constant.all(axis=0) & ~statistics.uniform
    if determined.any():
        names = tuple(table.features[i] for i in np.flatnonzero(determined))
        raise HarmonizationRefused([not_estimable(names)])
    return statistics.constant


def apply_steps(
    model: Model, dataset: Dataset, findings: Sequence[Finding], batches_of: Callable[[str], Labels]
) -> Result:
    """Correct scans by the frozen steps of `model`; `batches_of` gives the scans' batches in the step of a name.

    `findings` are those of before. Raises HarmonizationRefused where a step does not know a scan's batch or level.
    """
    parts = unpack(model)
    labels = {part.name: batches_of(part.name) for part in parts}
    found = list(findings)
    for part in parts:
        found += gate.check_apply(part.model, replace(dataset, batches=labels[part.name]))
    require_no_stops(found)
    current = dataset
    for part in parts:
        own = replace(current, batches=labels[part.name])
        current = current.with_values(Combat().correct(part.model, own, ()).values)
    unique = tuple(dict.fromkeys(found))
    return Result(current.values, model, unique, model.iterations, model.flags, model.facts)


def pack(
    algorithm: Algorithm,
    specification: Specification,
    dataset: Dataset,
    batches: Mapping[str, int],
    parts: Sequence[Part],
    facts: Mapping[str, Any],
) -> Model:
    """Return one model that holds all `parts`; `batches` are the labels it corrects, with their scans."""
    model = Model(
        algorithm=algorithm.id,
        version=algorithm.version,
        specification=specification,
        features=dataset.features,
        units=dataset.units,
        batches=tuple(batches),
        batch_sizes=tuple(batches.values()),
        coding=parts[0].model.coding,
        arrays={},
        facts={**facts, "parts": []},
    )
    for part in parts:
        model = _with_part(model, part)
    return model


def append(model: Model, part: Part, scans: int) -> Model:
    """Return the compound with one part more, which corrects the batch of its own name; the others stay as they are."""
    return replace(
        _with_part(model, part),
        batches=(*model.batches, part.name),
        batch_sizes=(*model.batch_sizes, scans),
    )


def unpack(model: Model) -> tuple[Part, ...]:
    """Return the parts of a compound model, each able to correct."""
    parts = []
    for index, described in enumerate(model.facts["parts"]):
        prefix = f"part{index}_"
        arrays = {
            name.removeprefix(prefix): array
            for name, array in model.arrays.items()
            if name.startswith(prefix)
        }
        own = Model(
            algorithm=described["algorithm"],
            version=described["version"],
            specification=Specification.from_json(described["specification"]),
            features=model.features,
            units=model.units,
            batches=tuple(described["batches"]),
            batch_sizes=tuple(described["batch_sizes"]),
            coding=CovariateCoding.from_json(described["coding"]),
            arrays=arrays,
        )
        parts.append(Part(described["name"], own))
    return tuple(parts)


def _with_part(model: Model, part: Part) -> Model:
    """Return the model with the arrays, steps, flags and description of one part more."""
    index, own = len(model.facts["parts"]), part.model
    arrays = {f"part{index}_{name}": array for name, array in own.arrays.items()}
    steps = {f"{part.name}: {pool}": counts for pool, counts in own.iterations.items()}
    flags = {
        code: tuple(dict.fromkeys((*model.flags.get(code, ()), *own.flags.get(code, ()))))
        for code in (*model.flags, *own.flags)
    }
    return replace(
        model,
        arrays={**model.arrays, **arrays},
        iterations={**model.iterations, **steps},
        flags=flags,
        facts={**model.facts, "parts": [*model.facts["parts"], _describe(part)]},
    )


def _describe(part: Part) -> dict[str, Any]:
    model = part.model
    return {
        "name": part.name,
        "algorithm": model.algorithm,
        "version": model.version,
        "specification": model.specification.to_json(),
        "batches": list(model.batches),
        "batch_sizes": list(model.batch_sizes),
        "coding": model.coding.to_json(),
    }
