"""Several fitted ComBat models kept as one, for methods that fit more than once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.model import CovariateCoding, Model
from harmonization_app.algorithms.specification import Specification


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One fit of a compound: its name (a batch variable, a moving batch) and its model."""

    name: str
    model: Model


def pack(
    algorithm_id: str,
    version: str,
    specification: Specification,
    dataset: Dataset,
    batches: Mapping[str, int],
    parts: Sequence[Part],
    facts: Mapping[str, Any],
) -> Model:
    """Return one model that holds all `parts`; `batches` are the labels it corrects, with their scans."""
    arrays = {
        f"part{index}_{name}": array
        for index, part in enumerate(parts)
        for name, array in part.model.arrays.items()
    }
    described = [_describe(part) for part in parts]
    flags: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for code, names in part.model.flags.items():
            flags[code] = tuple(dict.fromkeys((*flags.get(code, ()), *names)))
    return Model(
        algorithm=algorithm_id,
        version=version,
        specification=specification,
        features=dataset.features,
        units=dataset.units,
        batches=tuple(batches),
        batch_sizes=tuple(batches.values()),
        coding=parts[0].model.coding,
        arrays=arrays,
        iterations={
            f"{part.name}: {pool}": steps for part in parts for pool, steps in part.model.iterations.items()
        },
        flags=flags,
        facts={**facts, "parts": described},
    )


def append(model: Model, part: Part, scans: int) -> Model:
    """Return the compound with one part more, which corrects the batch of its own name; the others stay as they are."""
    index = len(model.facts["parts"])
    return replace(
        model,
        batches=(*model.batches, part.name),
        batch_sizes=(*model.batch_sizes, scans),
        arrays={
            **model.arrays,
            **{f"part{index}_{name}": array for name, array in part.model.arrays.items()},
        },
        iterations={
            **model.iterations,
            **{f"{part.name}: {pool}": steps for pool, steps in part.model.iterations.items()},
        },
        flags={
            code: tuple(dict.fromkeys((*model.flags.get(code, ()), *part.model.flags.get(code, ()))))
            for code in (*model.flags, *part.model.flags)
        },
        facts={**model.facts, "parts": [*model.facts["parts"], _describe(part)]},
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
