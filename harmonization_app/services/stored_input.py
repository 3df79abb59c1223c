"""What a finished run was given, from what is stored of it; refused where that is not what it was."""

from __future__ import annotations

from harmonization_app.models import HarmonizationRun
from harmonization_app.offline.computation import Computation
from harmonization_app.offline.dataset_files import dataset_digest
from harmonization_app.plan_document import PlanDocument, parse_plan
from harmonization_app.services.frozen_model import frozen_computation, models_of
from harmonization_app.services.frozen_rows import for_rows
from harmonization_app.services.preparation import Prepared, prepare
from harmonization_app.services.run_checks import require_same_input
from harmonization_app.services.run_rows import RowDecisions


def stored_preparation(parsed: PlanDocument, run: HarmonizationRun) -> Prepared:
    """Return the dataset of a run with the decisions on rows that were taken then.

    Raises NotFound where the stored table is damaged, StoredInputDiffers.
    """
    decisions = RowDecisions.from_json(run.row_decisions)
    prepared = prepare(for_rows(parsed, run.feature_set), run.feature_set, decisions)
    require_same_input(run, dataset_digest(prepared.dataset))
    return prepared


def stored_computation(run: HarmonizationRun) -> Computation:
    """Return what a succeeded run computed. Raises NotFound, StoredInputDiffers."""
    parsed = parse_plan(run.specification)
    prepared = stored_preparation(parsed, run)
    if run.model_of is not None:
        return frozen_computation(run, prepared, models_of(run.model_of))
    return Computation(
        mode="fit",
        algorithm=parsed.algorithm,
        specification=parsed.specification,
        dataset=prepared.dataset,
        calibration=prepared.calibration,
    )
