"""Measurements too many for a CSV: a matrix in NumPy's NPY format, read and written by pieces.

The file holds float64 or float32 [scans x features] in C order (https://numpy.org/doc/stable/reference/generated/
numpy.lib.format.html); the labels of its rows stand in a CSV beside it, one line per row in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from harmonization_app.diagnostics.csv_reading import FeatureTableInvalid

PIECE_BYTES = 64 << 20
GENERATED_NAME = "v{:06d}"
_TYPES = (np.dtype("<f8"), np.dtype("<f4"))


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """What was written: the shape [scans, features] and how many cells are missing (NaN)."""

    shape: tuple[int, int]
    missing: int


def open_matrix(path: Path) -> npt.NDArray[Any]:
    """Return the matrix in the file at `path`, mapped and not read.

    Raises FeatureTableInvalid where it is no NPY file, holds something else than a table of floats, is in
    Fortran order, or is shorter or longer than it says.
    """
    try:
        values = npy.open_memmap(path, mode="r")
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise FeatureTableInvalid(
            "The matrix is not a whole NPY file of numbers (numpy.save of a float64 array)."
        ) from error
    if values.ndim != 2 or values.dtype not in _TYPES:
        raise FeatureTableInvalid(
            "The matrix must be a table [scans x features] of little-endian float64 or float32."
        )
    if not values.flags.c_contiguous:
        raise FeatureTableInvalid(
            "The matrix is in Fortran order; save it as numpy.save(path, numpy.ascontiguousarray(values))."
        )
    if 0 in values.shape:
        raise FeatureTableInvalid(f"The matrix is empty: its shape is {values.shape}.")
    more = path.stat().st_size - values.offset - values.nbytes
    if more:
        raise FeatureTableInvalid(f"The file holds {more} bytes behind the matrix; send one whole NPY file.")
    return values


def write_matrix(values: npt.NDArray[Any], order: Sequence[int], target: Path) -> StoredMatrix:
    """Write the rows of `values` in `order` to `target` as float64, piece by piece.

    Raises FeatureTableInvalid naming the first infinite cell.
    """
    missing = 0
    with target.open("wb") as stream:
        npy.write_array_header_1_0(
            stream, {"descr": "<f8", "fortran_order": False, "shape": (len(order), values.shape[1])}
        )
        for piece in _pieces(order, values.shape[1]):
            rows = np.asarray(values[np.asarray(piece)], dtype="<f8")
            _require_finite(rows, piece)
            missing += int(np.isnan(rows).sum())
            stream.write(rows.data)
    return StoredMatrix((len(order), values.shape[1]), missing)


def _pieces(order: Sequence[int], features: int) -> Iterator[Sequence[int]]:
    step = max(1, PIECE_BYTES // (8 * features))
    for start in range(0, len(order), step):
        yield order[start : start + step]


def _require_finite(rows: npt.NDArray[np.float64], piece: Sequence[int]) -> None:
    infinite = np.argwhere(np.isinf(rows))
    if len(infinite):
        row, column = infinite[0].tolist()
        raise FeatureTableInvalid(
            f"The matrix is infinite at row {piece[row]}, column {column} (counted from 0)."
            " Write NaN where a value is missing."
        )


def matrix_columns(given: Sequence[Mapping[str, Any]], unit: str, features: int) -> list[dict[str, str]]:
    """Return name, unit and pool of each column: those given, or generated names with one unit.

    Raises FeatureTableInvalid where the count differs, a name stands twice or a unit is missing.
    """
    columns = [
        {"name": str(item["name"]), "unit": str(item.get("unit") or unit), "pool": str(item.get("pool", ""))}
        for item in given
    ] or [{"name": GENERATED_NAME.format(index), "unit": unit, "pool": ""} for index in range(features)]
    if len(columns) != features:
        raise FeatureTableInvalid(f"{len(columns)} columns are named, the matrix has {features}.")
    names = [column["name"] for column in columns]
    twice, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise FeatureTableInvalid(f"The column name {twice!r} stands twice.")
    lacking = next((column["name"] for column in columns if not column["unit"]), None)
    if lacking is not None:
        raise FeatureTableInvalid(
            f"The unit of {lacking} is missing; give metadata.unit, or one for each column"
            ' ("1" for a plain number).'
        )
    return columns
