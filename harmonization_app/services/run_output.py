"""The files of a run. Each says in itself whether the run was primary or exploratory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from harmonization_app.algorithms.base import Dataset, Finding, Result
from harmonization_app.algorithms.model import ModelFiles
from harmonization_app.diagnostics.feature_table import ROW_KEY_SEPARATOR, csv_line, number_cells
from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.offline.dataset_files import dataset_digest, plain_json, values_digest
from harmonization_app.offline.tables import KEY_COLUMNS
from hub.core.canonical import canonical_json

__all__ = [
    "dataset_digest",
    "harmonized_csv",
    "plain_json",
    "reasons",
    "refused",
    "values_digest",
    "zip_model",
]

_EPOCH = (1980, 1, 1, 0, 0, 0)


def harmonized_csv(run: HarmonizationRun, dataset: Dataset, result: Result) -> bytes:
    """Return the harmonized table: keys, run and kind in every row, then the features, 17 significant digits."""
    whole = io.BytesIO()
    whole.write(csv_line([*KEY_COLUMNS, *result.model.features]))
    for index in range(len(dataset.rows)):
        whole.write(csv_line([*key_cells(run, dataset, index), *number_cells(result.values[index])]))
    return whole.getvalue()


def key_cells(run: HarmonizationRun, dataset: Dataset, index: int) -> list[str]:
    """Return what KEY_COLUMNS name of one row."""
    subject, _, visit = dataset.rows[index].partition(ROW_KEY_SEPARATOR)
    return [subject, visit, dataset.batches[index] or "", str(run.pk), run.kind]


def zip_model(files: ModelFiles, identity: Mapping[str, str], calibration: ModelFiles | None = None) -> bytes:
    """Return model.json, model.npz and run.json as a zip archive; equal content gives equal bytes.

    A calibration that goes before the model lies in a folder of that name.
    """
    buffer = io.BytesIO()
    members = {
        "model.json": files.document,
        "model.npz": files.arrays,
        "run.json": canonical_json(dict(identity)),
    }
    if calibration is not None:
        members["calibration/model.json"] = calibration.document
        members["calibration/model.npz"] = calibration.arrays
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def refused(findings: Sequence[Finding], changes: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return the final state of a run that its gate refused, the reason, and what is stored with it."""
    changes["gate"] = [finding.to_json() for finding in findings]
    return RunState.REFUSED, reasons(findings), changes


def reasons(findings: Sequence[Finding]) -> str:
    """Return what stops a run, in words."""
    return " ".join(finding.message for finding in findings if finding.severity == "stop")
