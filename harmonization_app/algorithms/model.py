"""A fitted harmonization model and its storage as JSON and NPZ (never pickle)."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.specification import Specification
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput

MODEL_FORMAT = 1
# Flags of the features that a method of the ComBat family passes through unchanged.
LEFT_OUT = ("constant", "unusable")


@dataclass(frozen=True, slots=True)
class CovariateCoding:
    """How covariates became design columns when the model was fitted.

    `columns` are (covariate, level or None) in design order; `ranges` the (least, greatest) value of each
    continuous covariate, `levels` the levels of each categorical one, reference first.
    """

    columns: tuple[tuple[str, str | None], ...]
    levels: Mapping[str, tuple[str, ...]]
    ranges: Mapping[str, tuple[float, float]]

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(name if level is None else f"{name}[{level}]" for name, level in self.columns)

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": [list(column) for column in self.columns],
            "levels": {name: list(levels) for name, levels in self.levels.items()},
            "ranges": {name: list(limits) for name, limits in self.ranges.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CovariateCoding:
        return cls(
            columns=tuple((name, level) for name, level in document["columns"]),
            levels={name: tuple(levels) for name, levels in document["levels"].items()},
            ranges={name: (limits[0], limits[1]) for name, limits in document["ranges"].items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Everything needed to correct a scan of a known batch, and nothing of any subject.

    `arrays` holds float64 arrays, [batches x features] or [features] or [columns x features]; `batches`,
    `features` and `coding` name their axes; `facts` is JSON for the report.
    """

    algorithm: str
    version: str
    specification: Specification
    features: tuple[str, ...]
    units: tuple[str, ...]
    batches: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    coding: CovariateCoding
    arrays: Mapping[str, npt.NDArray[Any]]
    iterations: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def corrected(self) -> npt.NDArray[np.bool_]:
        """Which features the fit did not leave as they are, [features]."""
        left_out = {name for code in LEFT_OUT for name in self.flags.get(code, ())}
        return np.array([name not in left_out for name in self.features], dtype=np.bool_)

    def with_batch(
        self,
        batch: str,
        scans: int,
        rows: Mapping[str, npt.NDArray[Any]],
        priors: npt.NDArray[np.float64] | None = None,
        steps: Mapping[str, int] = MappingProxyType({}),
    ) -> Model:
        """Return the model with one batch more of `scans` scans; all other numbers stay bit for bit.

        `rows` are the batch's own of the arrays [batches x features] by name, `priors` [pools x 4] and `steps` by pool.
        """
        arrays = {name: np.vstack([self.arrays[name], row]) for name, row in rows.items()}
        if priors is not None:
            arrays["priors"] = np.concatenate([self.arrays["priors"], priors[:, None, :]], axis=1)
        return replace(
            self,
            batches=(*self.batches, batch),
            batch_sizes=(*self.batch_sizes, scans),
            arrays={**self.arrays, **arrays},
            iterations={
                pool: {**own, **({batch: steps[pool]} if pool in steps else {})}
                for pool, own in self.iterations.items()
            },
        )


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The two files of a stored model: canonical JSON and the NPZ whose digest it holds."""

    document: bytes
    arrays: bytes


def save_model(model: Model) -> ModelFiles:
    """Return the model as bytes; the same model always gives the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: model.arrays[name] for name in sorted(model.arrays)})
    arrays = buffer.getvalue()
    document = {
        "format": MODEL_FORMAT,
        "algorithm": model.algorithm,
        "version": model.version,
        "specification": model.specification.to_json(),
        "features": list(model.features),
        "units": list(model.units),
        "batches": list(model.batches),
        "batch_sizes": list(model.batch_sizes),
        "coding": model.coding.to_json(),
        "iterations": {pool: dict(counts) for pool, counts in model.iterations.items()},
        "flags": {code: list(names) for code, names in model.flags.items()},
        "facts": dict(model.facts),
        "arrays": {
            name: [str(array.dtype), list(array.shape)] for name, array in sorted(model.arrays.items())
        },
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
    }
    return ModelFiles(canonical_json(document), arrays)


def load_model(files: ModelFiles) -> Model:
    """Return the stored model.

    Raises InvalidInput when the format is unknown, the digest differs or an array is not as the document
    says.
    """
    try:
        document = json.loads(files.document)
        if document["format"] != MODEL_FORMAT:
            raise InvalidInput(
                f"Model format {document['format']} is not known here; this hub reads {MODEL_FORMAT}."
            )
        if hashlib.sha256(files.arrays).hexdigest() != document["arrays_sha256"]:
            raise InvalidInput(
                "The model's arrays differ from the digest in its document; it was damaged or changed."
            )
        return _model_from(document, files.arrays)
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The model cannot be read: {error!r}. Export it again from its run.") from error


def _model_from(document: dict[str, Any], content: bytes) -> Model:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    described = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    if described != document["arrays"]:
        raise InvalidInput("The model's arrays have other names, types or shapes than its document says.")
    return Model(
        algorithm=document["algorithm"],
        version=document["version"],
        specification=Specification.from_json(document["specification"]),
        features=tuple(document["features"]),
        units=tuple(document["units"]),
        batches=tuple(document["batches"]),
        batch_sizes=tuple(document["batch_sizes"]),
        coding=CovariateCoding.from_json(document["coding"]),
        arrays=arrays,
        iterations=document["iterations"],
        flags={code: tuple(names) for code, names in document["flags"].items()},
        facts=document["facts"],
    )
