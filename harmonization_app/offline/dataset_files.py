"""A dataset as two files, JSON labels and a NumPy array, that give the same bits back; and its digest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from harmonization_app.algorithms.base import Dataset, FloatArray
from hub.core.canonical import digest
from hub.core.errors import InvalidInput

LABELS, VALUES = "dataset.json", "values.npy"
SCHEMA = "hub.harmonization-dataset/1"


def dataset_digest(dataset: Dataset) -> str:
    """Return the digest of everything a method is given: labels, covariates and values."""
    labels = {
        "rows": list(dataset.rows),
        "features": list(dataset.features),
        "batches": list(dataset.batches),
        "covariates": {name: list(column) for name, column in dataset.covariates.items()},
        "values": values_digest(dataset.values),
    }
    return digest(plain_json(labels))


def values_digest(values: FloatArray) -> str:
    """Return the SHA-256 of a table's bits, little-endian float64 by rows."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").data).hexdigest()


def plain_json(value: Any) -> Any:
    """Return `value` as JSON holds it: NaN and infinity become null."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic):
        return plain_json(value.item())
    return value


def labels_json(dataset: Dataset) -> bytes:
    """Return everything of a dataset but its values; numbers keep their bits, NaN included."""
    document = {
        "schema": SCHEMA,
        "features": list(dataset.features),
        "units": list(dataset.units),
        "rows": list(dataset.rows),
        "batches": list(dataset.batches),
        "covariates": {
            name: [_plain(cell) for cell in column] for name, column in dataset.covariates.items()
        },
    }
    return json.dumps(document, sort_keys=True, ensure_ascii=False, indent=1).encode()


def _plain(cell: Any) -> Any:
    return cell.item() if isinstance(cell, np.generic) else cell


def write_values(path: Path, values: FloatArray) -> None:
    """Write the table's bits as NPY, without pickle."""
    np.save(path, np.ascontiguousarray(values, dtype="<f8"), allow_pickle=False)


def read_values(path: Path) -> FloatArray:
    """Return a float64 table, mapped: it is read where it is used, also when the file has lost its name since.

    Raises InvalidInput where the file is none.
    """
    try:
        values = npy.open_memmap(path, mode="r")
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InvalidInput(f"{path.name} cannot be read as a table: {error}.") from error
    if values.dtype != np.dtype("<f8") or values.ndim != 2:
        raise InvalidInput(f"{path.name} holds no table of 64-bit numbers.")
    return np.ascontiguousarray(values, dtype=np.float64)


def write_dataset(folder: Path, dataset: Dataset) -> None:
    (folder / LABELS).write_bytes(labels_json(dataset))
    write_values(folder / VALUES, dataset.values)


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset of a folder. Raises InvalidInput where a file is missing, damaged or does not fit."""
    return dataset_from((folder / LABELS).read_bytes(), read_values(folder / VALUES))


def dataset_from(labels: bytes, values: FloatArray) -> Dataset:
    """Return the dataset of stored labels and values. Raises InvalidInput where they do not fit."""
    try:
        document = json.loads(labels)
        if document["schema"] != SCHEMA:
            raise InvalidInput(f"{LABELS} is of another form: {document['schema']}.")
        return Dataset(
            values,
            tuple(document["features"]),
            tuple(document["rows"]),
            tuple(document["batches"]),
            {name: tuple(column) for name, column in document["covariates"].items()},
            tuple(document["units"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{LABELS} cannot be read: {error!r}.") from error


def dataset_csv(dataset: Dataset) -> Iterable[bytes]:
    """Yield the dataset as a table for people: row, batch, covariates, features with 17 significant digits."""
    yield _line(["row", "batch", *dataset.covariates, *dataset.features])
    for index, row in enumerate(dataset.rows):
        covariates = [column[index] for column in dataset.covariates.values()]
        cells = ["" if math.isnan(value) else f"{value:.17g}" for value in dataset.values[index].tolist()]
        yield _line([row, dataset.batches[index], *covariates, *cells])


def _line(cells: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue().encode()
