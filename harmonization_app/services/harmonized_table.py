"""The harmonized table of a run as it is stored: CSV, or for measurements that came as a matrix an NPY file of the
values and a CSV of their keys.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, Result
from harmonization_app.diagnostics.feature_matrix import open_matrix, write_matrix
from harmonization_app.diagnostics.feature_table import csv_line, number_cells
from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.offline.tables import KEY_COLUMNS, HarmonizedTable, read_harmonized
from harmonization_app.services.run_output import harmonized_csv, key_cells
from hub.core.errors import NotFound
from hub.core.storage.blobs import blob_file, get_blob, put_blob, put_file, root

# In the summary of a run: the digest of the rows' keys, and of the columns' names, of values stored as a matrix.
KEYS = "keys_digest"


def put_harmonized(run: HarmonizationRun, dataset: Dataset, result: Result) -> tuple[str, dict[str, Any]]:
    """Store the harmonized values; return their digest and what the summary has to say of how they are stored."""
    if run.feature_set.origin != FeatureSet.Origin.MATRIX:
        return put_blob(harmonized_csv(run, dataset, result)), {}
    keys = [csv_line([*KEY_COLUMNS, *result.model.features])]
    keys += [csv_line(key_cells(run, dataset, index)) for index in range(len(dataset.rows))]
    with tempfile.TemporaryDirectory(dir=root("spool"), prefix="matrix-") as folder:
        target = Path(folder) / "values.npy"
        write_matrix(result.values, range(len(dataset.rows)), target)
        return put_file(target), {KEYS: put_blob(b"".join(keys))}


def is_matrix(run: HarmonizationRun) -> bool:
    """Return whether the harmonized values of a run are stored as a matrix."""
    return KEYS in run.summary


def harmonized_csv_of(run: HarmonizationRun) -> bytes:
    """Return the stored CSV. Raises NotFound where the run has none."""
    if not run.data_digest:
        raise NotFound("This run has no such output: it has not succeeded.")
    return get_blob(run.data_digest)


def harmonized_lines(run: HarmonizationRun) -> Iterator[bytes]:
    """Yield the table as CSV in pieces, however it is stored. Raises NotFound where the run has none."""
    return matrix_lines(run) if is_matrix(run) else iter([harmonized_csv_of(run)])


def matrix_lines(run: HarmonizationRun) -> Iterator[bytes]:
    """Yield a matrix as the CSV of `harmonized_csv`: keys, run and kind in every row."""
    values = open_matrix(blob_file(run.data_digest))
    header, *rows = csv.reader(io.StringIO(get_blob(run.summary[KEYS]).decode()))
    yield csv_line(header)
    for own, measured in zip(rows, values, strict=True):
        yield csv_line([*own, *number_cells(measured)])


def harmonized_table(run: HarmonizationRun) -> HarmonizedTable:
    """Return the table of a run; its values are mapped, not read, where they are a matrix.

    Raises NotFound where the run has none.
    """
    if not is_matrix(run):
        return read_harmonized(harmonized_csv_of(run))
    header, *rows = csv.reader(io.StringIO(get_blob(run.summary[KEYS]).decode()))
    values = np.asarray(open_matrix(blob_file(run.data_digest)))
    return HarmonizedTable(tuple(tuple(row) for row in rows), tuple(header[len(KEY_COLUMNS) :]), values)
