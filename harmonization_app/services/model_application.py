"""Frozen models: applied to new scans of known batches, or with one batch added in a documented step.

An interim look so uses the model that stands; what was done to the scans before it does not change.
"""

from __future__ import annotations

from typing import Any

from harmonization_app.algorithms.add_batch import explain_new_batch
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.models import FeatureSet, HarmonizationRun, RunState
from harmonization_app.permissions import require_analyst
from harmonization_app.services.algorithm import require_present_code
from harmonization_app.services.run import FrozenModel, start_run
from hub.core.errors import Conflict, InvalidInput

_LONGEST_BATCH = 200
_LONGEST_REASON = 1000


def apply_model(*, actor: Any, run: HarmonizationRun, feature_set: FeatureSet) -> HarmonizationRun:
    """Start a run that corrects `feature_set` by the model of `run`, each scan with its own covariates.

    It is primary where `run` is, its plan is still in force and the data are not locked. Raises NotAllowed,
    InvalidInput, DigestDiffers, Conflict where `run` has no model that can be applied.
    """
    _require_model(actor, run, feature_set)
    return _start(actor, feature_set, FrozenModel(run, HarmonizationRun.Mode.APPLY))


def add_batch(
    *, actor: Any, run: HarmonizationRun, feature_set: FeatureSet, batch: str, reason: str
) -> HarmonizationRun:
    """Start a run that adds `batch`, estimated from its rows of `feature_set`, to the model of `run`.

    The parameters of the other batches stay bit for bit; the reason is kept in run and audit. Raises what
    `apply_model` raises, and Conflict where the method knows no such step.
    """
    _require_model(actor, run, feature_set)
    algorithm = run.algorithm_version.algorithm
    if not get_algorithm(algorithm).capabilities.new_batch:
        raise Conflict(f"No batch can be added to a model of {algorithm}. {explain_new_batch(algorithm)}")
    if not batch.strip() or len(batch) > _LONGEST_BATCH:
        raise InvalidInput(
            "Name the new batch as the feature set does.",
            errors=[{"field": "batch", "message": f"1 to {_LONGEST_BATCH} characters"}],
        )
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise InvalidInput(
            "Adding a batch to a frozen model needs its reason in words.",
            errors=[{"field": "reason", "message": f"1 to {_LONGEST_REASON} characters"}],
        )
    step = FrozenModel(run, HarmonizationRun.Mode.ADD_BATCH, batch.strip(), reason.strip())
    return _start(actor, feature_set, step)


def _require_model(actor: Any, run: HarmonizationRun, feature_set: FeatureSet) -> None:
    require_analyst(actor, run.trial, "apply harmonization models")
    if feature_set.trial_id != run.trial_id:
        raise InvalidInput(
            "The model and the feature set belong to different trials.",
            errors=[{"field": "feature_set", "message": "is of another trial"}],
        )
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"This run is {run.state}; only a succeeded run has a model.")
    require_present_code(run.algorithm_version)
    if not get_algorithm(run.algorithm_version.algorithm).capabilities.train_apply:
        raise Conflict(
            f"A model of {run.algorithm_version.algorithm} cannot be applied to other scans than those it was"
            " estimated on. Run the method on all of them."
        )


def _start(actor: Any, feature_set: FeatureSet, frozen: FrozenModel) -> HarmonizationRun:
    primary = frozen.run.kind == HarmonizationRun.Kind.PRIMARY
    plan = frozen.run.plan if primary else None
    return start_run(
        actor=actor,
        feature_set=feature_set,
        plan=plan,
        specification=None if plan else frozen.run.specification,
        exploratory="" if primary else "the model is that of an exploratory run",
        frozen=frozen,
    )
