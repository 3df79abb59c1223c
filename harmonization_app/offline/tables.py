"""The harmonized table of a run, read back to the bits that were written."""

from __future__ import annotations

import csv
import io
import math

import numpy as np

from harmonization_app.algorithms.base import FloatArray

KEY_COLUMNS = ("subject", "visit", "batch", "harmonization_run", "harmonization_kind")


def read_harmonized(content: bytes) -> FloatArray:
    """Return the values [rows x features] of a harmonized table, its key columns left out."""
    header, *rows = csv.reader(io.StringIO(content.decode()))
    cells = [[float(cell) if cell else math.nan for cell in row[len(KEY_COLUMNS) :]] for row in rows]
    return np.array(cells, dtype=np.float64).reshape(len(rows), len(header) - len(KEY_COLUMNS))
