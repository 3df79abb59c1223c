"""Feature sets: imported from CSV or built from QC metrics, then immutable."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import transaction

from harmonization_app.diagnostics.blinding import arm_like_names
from harmonization_app.diagnostics.csv_reading import read_header
from harmonization_app.diagnostics.feature_matrix import open_matrix
from harmonization_app.diagnostics.feature_table import (
    ROW_KEY_SEPARATOR,
    CsvLayout,
    FeatureTable,
    read_feature_csv,
)
from harmonization_app.models import FeatureSet
from harmonization_app.permissions import require_analyst
from harmonization_app.services.table_metadata import TableMetadata
from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict, InvalidInput, TooLarge
from hub.core.storage.blobs import blob_file, get_blob, put_blob
from qc_app.models import MetricValue
from sites_app.models import Arm, LockState, Subject, Trial, VisitDefinition

KEYS = ("subject", "visit")
# Where a stored row keeps its key, beside its metadata by column.
ROW_KEY = "row"
ARM_NAMES = frozenset({"arm", "treatment", "treatment_arm", "randomisation", "randomization", "arm_code"})
QC_METADATA = ("batch", "manufacturer", "scanner", "site", "software")


def import_feature_set(
    *, actor: Any, trial: Trial, name: str, content: bytes, metadata: Mapping[str, Any]
) -> FeatureSet:
    """Read a CSV strictly and keep it as an immutable feature set; the same table again is the same set.

    `metadata` may hold columns [{name, unit, pool}], covariates [{name, kind, ...}], batch, units, metadata.
    Raises FeatureTableInvalid naming rows and columns, InvalidInput, NotAllowed, Conflict.
    """
    require_analyst(actor, trial, "import feature sets")
    require_open(trial)
    if len(content) > settings.HUB_TABLE_LIMIT_BYTES:
        raise TooLarge(
            f"The CSV has {len(content):,} bytes; at most {settings.HUB_TABLE_LIMIT_BYTES:,} are read. Send the"
            " measurements as a matrix (NPY) with the labels of its rows, by the API or hub-client."
        )
    described = TableMetadata.parse(metadata)
    layout = CsvLayout(
        subject="subject",
        visit="visit",
        metadata=_metadata_columns(content, described),
        units=described.units,
        subjects=frozenset(Subject.objects.filter(trial=trial).values_list("code", flat=True)),
        visits=frozenset(VisitDefinition.objects.filter(trial=trial).values_list("code", flat=True)),
    )
    table = read_feature_csv(content, layout)
    refuse_row_key(table.metadata)
    refuse_arms(trial, table.metadata, table.features)
    return _store(
        actor=actor,
        trial=trial,
        name=name,
        table=table,
        described=described,
        origin=FeatureSet.Origin.CSV,
        provenance={"bytes": len(content)},
    )


def refuse_arms(trial: Trial, metadata: Mapping[str, Sequence[str]], features: Collection[str] = ()) -> None:
    """Raise InvalidInput for a column that tells the treatment arm: blinded roles read feature sets.

    Features are judged by their names alone: a number may well be equal to an arm's code.
    """
    arms = {code.lower() for code in Arm.objects.filter(trial=trial).values_list("code", flat=True)}
    named = set(arm_like_names((*features, *metadata), ARM_NAMES))
    for column, values in {**dict.fromkeys(features, ()), **metadata}.items():
        found = {value.lower() for value in values if value}
        if column in named or (len(found) > 1 and found <= arms):
            raise InvalidInput(
                f"The column {column} tells the treatment arm. Harmonization before data lock is blinded, and"
                " blinded roles read feature sets: leave the column out.",
                errors=[{"field": column, "message": "tells the treatment arm"}],
            )


def _metadata_columns(content: bytes, described: TableMetadata) -> tuple[str, ...]:
    """Return the columns that are no features: named ones, and all unnamed ones once the features are named."""
    header = read_header(content)
    named = {item["name"] for item in described.covariates} | set(described.other)
    if described.features:
        named |= set(header) - set(described.features)
    return tuple(column for column in header if column in named and column not in KEYS)


def refuse_row_key(columns: Collection[str]) -> None:
    """Raise InvalidInput where a column bears the name under which the hub keeps the key of a row."""
    if ROW_KEY in columns:
        raise InvalidInput(
            f"The column name {ROW_KEY!r} is the hub's own for the key of a row; rename the column.",
            errors=[{"field": ROW_KEY, "message": "is a reserved name"}],
        )


def build_from_metrics(
    *, actor: Any, trial: Trial, name: str, metrics: list[str], expected_key: str
) -> FeatureSet:
    """Make a feature set of QC metrics of the series taken for `expected_key`, one row per subject and visit.

    Raises InvalidInput where no series has the metrics, NotAllowed, Conflict.
    """
    require_analyst(actor, trial, "build feature sets")
    require_open(trial)
    if not metrics:
        raise InvalidInput("Name at least one metric.")
    cells, units = _measured(trial, metrics, expected_key)
    absent = [metric for metric in metrics if metric not in units]
    if absent:
        raise InvalidInput(f"No series of {expected_key} has the metric {', '.join(absent)}.")
    described = TableMetadata(
        units=units, pools={}, covariates=(), other=QC_METADATA, features=tuple(metrics)
    )
    table = read_feature_csv(
        _as_csv(cells, metrics),
        CsvLayout(subject="subject", visit="visit", metadata=QC_METADATA, units=units, as_stored=True),
    )
    return _store(
        actor=actor,
        trial=trial,
        name=name,
        table=table,
        described=described,
        origin=FeatureSet.Origin.QC_METRICS,
        provenance={"metrics": metrics, "expected_key": expected_key},
    )


def _measured(
    trial: Trial, metrics: Sequence[str], expected_key: str
) -> tuple[dict[tuple[str, str], dict[str, str]], dict[str, str]]:
    """Return the cells of each subject's visit by column, and the unit of each metric that was found."""
    rows = (
        MetricValue.objects.filter(trial=trial, name__in=metrics, expected_key=expected_key)
        .select_related("series__subject", "series__visit__definition", "series__scanner", "series__site")
        .select_related("series__scanner_epoch")
        .order_by("series__received_at")
    )
    cells: dict[tuple[str, str], dict[str, str]] = {}
    units: dict[str, str] = {}
    for value in rows:
        key = (value.series.subject.code, value.series.visit.definition.code)
        # A later series of the same visit replaces an earlier one: it answers a re-scan request.
        cells.setdefault(key, {}).update(_describe(value.series))
        cells[key][value.name] = "" if value.value is None else f"{value.value:.17g}"
        units[value.name] = value.unit or "1"
    return cells, units


def _describe(series: Any) -> dict[str, str]:
    scanner, epoch = series.scanner, series.scanner_epoch
    software = epoch.software_versions if epoch else ""
    serial = scanner.serial_number if scanner else ""
    return {
        "site": series.site.code,
        "manufacturer": scanner.manufacturer if scanner else "",
        "scanner": serial,
        "software": software,
        "batch": f"{serial} {software}".strip(),
    }


def _as_csv(cells: Mapping[tuple[str, str], Mapping[str, str]], metrics: list[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*QC_METADATA, *metrics]
    writer.writerow([*KEYS, *columns])
    for (subject, visit), row in sorted(cells.items()):
        writer.writerow([subject, visit, *(row.get(column, "") for column in columns)])
    return text.getvalue().encode()


def _store(
    *,
    actor: Any,
    trial: Trial,
    name: str,
    table: FeatureTable,
    described: TableMetadata,
    origin: str,
    provenance: Mapping[str, Any],
) -> FeatureSet:
    columns = [
        {"name": feature, "unit": unit, "pool": described.pools.get(feature, "")}
        for feature, unit in zip(table.features, table.units, strict=True)
    ]
    return store_feature_set(
        actor=actor,
        trial=trial,
        name=name,
        columns=columns,
        covariates=described.covariates,
        rows=[
            {"row": key, **{column: values[index] for column, values in table.metadata.items()}}
            for index, key in enumerate(table.rows)
        ],
        missing=int((table.values != table.values).sum()),
        data_digest=put_blob(table.canonical),
        origin=origin,
        provenance=provenance,
    )


def store_feature_set(
    *,
    actor: Any,
    trial: Trial,
    name: str,
    columns: list[dict[str, str]],
    covariates: Sequence[Mapping[str, Any]],
    rows: list[dict[str, str]],
    missing: int,
    data_digest: str,
    origin: str,
    provenance: Mapping[str, Any],
) -> FeatureSet:
    """Keep the table stored under `data_digest` as a feature set; the same content again is the same set."""
    identity = digest({"data": data_digest, "columns": columns, "covariates": list(covariates)})
    with transaction.atomic():
        row, created = FeatureSet.objects.get_or_create(
            trial=trial,
            digest=identity,
            defaults={
                "name": name.strip() or "Feature set",
                "origin": origin,
                "provenance": dict(provenance),
                "columns": columns,
                "covariates": list(covariates),
                "rows": rows,
                "row_count": len(rows),
                "column_count": len(columns),
                "missing_count": missing,
                "data_digest": data_digest,
                "created_by": actor,
            },
        )
        if not created:
            return row
        record(
            actor=actor,
            action="feature_set.created",
            obj=row,
            new={"digest": identity, "rows": row.row_count, "columns": row.column_count, "missing": missing},
        )
    return row


def load_table(feature_set: FeatureSet) -> FeatureTable:
    """Return the stored table, checked against its digest. Raises NotFound where it is damaged."""
    if feature_set.origin == FeatureSet.Origin.MATRIX:
        return _matrix_table(feature_set)
    content = get_blob(feature_set.data_digest)
    names = tuple(key for key in (feature_set.rows[0] if feature_set.rows else {}) if key != "row")
    return read_feature_csv(
        content,
        CsvLayout(subject="subject", visit="visit", metadata=names, units_required=False, as_stored=True),
    )


def _matrix_table(feature_set: FeatureSet) -> FeatureTable:
    """Return a table whose values stay on disk: they are mapped, and read where they are used."""
    keys = [str(row["row"]).partition(ROW_KEY_SEPARATOR) for row in feature_set.rows]
    names = tuple(key for key in feature_set.rows[0] if key != "row")
    return FeatureTable(
        subjects=tuple(subject for subject, _, _ in keys),
        visits=tuple(visit for _, _, visit in keys),
        metadata={name: tuple(row[name] for row in feature_set.rows) for name in names},
        features=tuple(column["name"] for column in feature_set.columns),
        units=tuple(column["unit"] for column in feature_set.columns),
        values=open_matrix(blob_file(feature_set.data_digest)),
    )


def require_open(trial: Trial) -> None:
    """Raise Conflict where the data of the trial are locked."""
    if Trial.objects.get(pk=trial.pk).lock_state == LockState.LOCKED:
        raise Conflict("The data of this trial are locked: no feature set can be added.")
