"""The harmonized table of a run, read back to the bits that were written."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import FloatArray

KEY_COLUMNS = ("subject", "visit", "batch", "harmonization_run", "harmonization_kind")


@dataclass(frozen=True, slots=True, eq=False)
class HarmonizedTable:
    """Keys of the rows as KEY_COLUMNS name them, names of the features, values [rows x features]."""

    keys: tuple[tuple[str, ...], ...]
    features: tuple[str, ...]
    values: FloatArray


def read_harmonized(content: bytes) -> HarmonizedTable:
    """Return a harmonized table; an empty cell is missing (NaN)."""
    header, *rows = csv.reader(io.StringIO(content.decode()))
    first = len(KEY_COLUMNS)
    cells = [[float(cell) if cell else math.nan for cell in row[first:]] for row in rows]
    values = np.array(cells, dtype=np.float64).reshape(len(rows), len(header) - first)
    return HarmonizedTable(tuple(tuple(row[:first]) for row in rows), tuple(header[first:]), values)
