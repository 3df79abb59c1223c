"""Feature sets too wide for a CSV: a matrix file with the labels of its rows beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset
from harmonization_app.diagnostics.feature_matrix import (
    matrix_columns,
    open_matrix,
    write_matrix,
)
from harmonization_app.diagnostics.feature_table import (
    ROW_KEY_SEPARATOR,
    CsvLayout,
    FeatureTableInvalid,
    RowLabels,
    csv_line,
    number_cells,
    read_row_labels,
)
from harmonization_app.models import FeatureSet
from harmonization_app.permissions import require_analyst
from harmonization_app.services.feature_set import (
    load_table,
    refuse_arms,
    refuse_row_key,
    require_open,
    store_feature_set,
)
from harmonization_app.services.table_metadata import TableMetadata
from hub.core.storage.blobs import put_file, require_free_space, root
from sites_app.models import Subject, Trial, VisitDefinition


def import_matrix(
    *, actor: Any, trial: Trial, name: str, labels: bytes, matrix: Path, metadata: Mapping[str, Any]
) -> FeatureSet:
    """Keep the NPY file at `matrix` [scans x features] as a feature set; `labels` is the CSV of its rows.

    `metadata` is that of a CSV import; `unit` gives one unit to all columns and, without `columns`, names them
    v000000 and on. Rows are put in canonical order. Raises FeatureTableInvalid, InvalidInput, NotAllowed,
    Conflict, StorageFull.
    """
    require_analyst(actor, trial, "import feature sets")
    require_open(trial)
    require_free_space()
    described = TableMetadata.parse(metadata)
    values = open_matrix(matrix)
    columns = matrix_columns(
        [
            {"name": name, "unit": described.units.get(name, ""), "pool": described.pools.get(name, "")}
            for name in described.features
        ],
        str(metadata.get("unit", "")),
        values.shape[1],
    )
    rows = read_row_labels(labels, _layout(trial))
    if len(rows.order) != values.shape[0]:
        raise FeatureTableInvalid(
            f"The labels name {len(rows.order)} rows, the matrix has {values.shape[0]}."
        )
    refuse_row_key(rows.metadata)
    refuse_arms(trial, rows.metadata, [column["name"] for column in columns])
    data_digest, missing = _put_matrix(values, rows)
    return store_feature_set(
        actor=actor,
        trial=trial,
        name=name,
        columns=columns,
        covariates=described.covariates,
        rows=_row_documents(rows),
        missing=missing,
        data_digest=data_digest,
        origin=FeatureSet.Origin.MATRIX,
        provenance={"bytes": matrix.stat().st_size},
    )


def _put_matrix(values: Any, rows: RowLabels) -> tuple[str, int]:
    """Store the matrix with its rows in canonical order; return its digest and the number of missing cells."""
    with tempfile.TemporaryDirectory(dir=root("spool"), prefix="matrix-") as folder:
        target = Path(folder) / "values.npy"
        stored = write_matrix(values, rows.order, target)
        return put_file(target), stored.missing


def _layout(trial: Trial) -> CsvLayout:
    return CsvLayout(
        subject="subject",
        visit="visit",
        subjects=frozenset(Subject.objects.filter(trial=trial).values_list("code", flat=True)),
        visits=frozenset(VisitDefinition.objects.filter(trial=trial).values_list("code", flat=True)),
    )


def _row_documents(rows: RowLabels) -> list[dict[str, str]]:
    keys = [
        f"{subject}{ROW_KEY_SEPARATOR}{visit}"
        for subject, visit in zip(rows.subjects, rows.visits, strict=True)
    ]
    return [
        {"row": key, **{name: column[index] for name, column in rows.metadata.items()}}
        for index, key in enumerate(keys)
    ]


def select_rows(dataset: Dataset, kept: Sequence[int]) -> Dataset:
    """Return the scans at positions `kept`; of a table that stays on disk they stay there too, in a nameless file."""
    if not isinstance(dataset.values.base, np.memmap):
        return dataset.select(kept)
    with tempfile.TemporaryDirectory(dir=root("computations"), prefix="rows-") as folder:
        target = Path(folder) / "values.npy"
        write_matrix(dataset.values, kept, target)
        values = open_matrix(target)  # the file lives as long as it is mapped
    return Dataset(
        values,
        dataset.features,
        tuple(dataset.rows[index] for index in kept),
        tuple(dataset.batches[index] for index in kept),
        {name: tuple(column[index] for index in kept) for name, column in dataset.covariates.items()},
        dataset.units,
    )


def table_csv(feature_set: FeatureSet) -> Iterator[bytes]:
    """Yield the lines of a matrix feature set as CSV, with its units row, as a CSV import would be stored."""
    table = load_table(feature_set)
    names = sorted(table.metadata)
    yield csv_line(["subject", "visit", *names, *table.features])
    yield csv_line(["unit", *[""] * (len(names) + 1), *table.units])
    for index, (subject, visit) in enumerate(zip(table.subjects, table.visits, strict=True)):
        own = [subject, visit, *(table.metadata[name][index] for name in names)]
        yield csv_line([*own, *number_cells(table.values[index])])
