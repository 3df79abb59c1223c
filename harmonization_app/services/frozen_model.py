"""The stored models of a run, and what a run that uses them computes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from harmonization_app.algorithms.chain import CALIBRATION, MAIN
from harmonization_app.algorithms.model import Model, ModelFiles, load_model
from harmonization_app.models import HarmonizationRun
from harmonization_app.offline.computation import Computation
from harmonization_app.services.preparation import Prepared
from hub.core.errors import Conflict
from hub.core.storage.blobs import get_blob


def frozen_computation(row: HarmonizationRun, prepared: Prepared, models: Mapping[str, Model]) -> Computation:
    """Return what a run with a frozen model computes."""
    return Computation(
        mode="add_batch" if row.mode == HarmonizationRun.Mode.ADD_BATCH else "apply",
        algorithm=row.algorithm_version.algorithm,
        specification=models[MAIN].specification,
        dataset=prepared.dataset,
        calibration=prepared.calibration,
        models=models,
        batch=row.added_batch,
    )


def models_of(run: HarmonizationRun | None) -> dict[str, Model]:
    """Return the stored models of a succeeded run by step. Raises NotFound where they are damaged."""
    if run is None or not run.model_digest:
        raise Conflict("The run that the model is of has none.")
    with zipfile.ZipFile(io.BytesIO(get_blob(run.model_digest))) as archive:
        names = set(archive.namelist())
        folders = {MAIN: "", CALIBRATION: f"{CALIBRATION}/"}
        return {
            step: load_model(
                ModelFiles(archive.read(f"{folder}model.json"), archive.read(f"{folder}model.npz"))
            )
            for step, folder in folders.items()
            if f"{folder}model.json" in names
        }
