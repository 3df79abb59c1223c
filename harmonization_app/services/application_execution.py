"""Carrying out a run that uses a frozen model: rows, model, gate, correction, proof that nothing else changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Finding, HarmonizationRefused
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, ChainResult
from harmonization_app.algorithms.model import Model, save_model
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.offline.computation import Computation, Outcome
from harmonization_app.offline.dataset_files import dataset_digest, values_digest
from harmonization_app.plan_document import PlanDocument, parse_plan
from harmonization_app.services.frozen_model import frozen_computation, models_of
from harmonization_app.services.frozen_rows import prepare_for_model
from harmonization_app.services.harmonized_table import put_harmonized
from harmonization_app.services.learnt import learnt_by
from harmonization_app.services.preparation import Prepared, check_ranges
from harmonization_app.services.run_checks import (
    UNREADABLE,
    check_applied,
    cross_check_findings,
    equality_of,
    not_computed,
    require_same_input,
)
from harmonization_app.services.run_output import reasons, refused, zip_model
from hub.core.errors import Conflict, HubError
from hub.core.storage.blobs import put_blob

Changes = dict[str, Any]
Compute = Callable[[Computation], Outcome]
Tell = Callable[[float, str], None]


def carry_out_application(row: HarmonizationRun, compute: Compute, tell: Tell) -> tuple[str, str, Changes]:
    """Return the final state of a run with a frozen model, its reason, and what is stored with it.

    `tell` is given the share that is done and the stage.
    """
    parsed = parse_plan(row.specification)
    prepared = prepare_for_model(parsed, row, row.rerun_of)
    prepared = replace(prepared, findings=(*check_ranges(parsed, prepared.dataset), *prepared.findings))
    changes: Changes = {
        "input_digest": dataset_digest(prepared.dataset),
        "row_decisions": prepared.decisions.to_json(),
    }
    if row.rerun_of is not None:
        require_same_input(row.rerun_of, changes["input_digest"])
    if stops(prepared.findings):
        return refused(prepared.findings, changes)
    models = models_of(row.model_of)
    try:
        outcome = compute(frozen_computation(row, prepared, models))
    except HarmonizationRefused as refusal:
        return refused((*_pointing(refusal.findings), *prepared.findings), changes)
    chain = outcome.result
    tell(0.5, "computing the result a second time")
    check = _check_again(row, prepared, chain, models)
    primary = row.kind == HarmonizationRun.Kind.PRIMARY
    findings = (*prepared.findings, *chain.findings, *cross_check_findings(check, primary=primary))
    changes |= {
        "gate": [finding.to_json() for finding in findings],
        "summary": _summary(row, parsed, prepared, outcome, models) | {"cross_check": check},
    }
    if stops(findings):
        return RunState.FAILED, reasons(findings), changes
    return RunState.SUCCEEDED, "", changes | _outputs(row, prepared, chain, changes["summary"])


def _check_again(
    row: HarmonizationRun, prepared: Prepared, chain: ChainResult, models: Mapping[str, Model]
) -> dict[str, Any]:
    """Return the comparison with a second computation, from the scans that the model was estimated on."""
    try:
        learnt = learnt_by(row, prepared.dataset, models)
    except HubError as error:
        return not_computed(f"{UNREADABLE} {error.detail}")
    return check_applied(row.algorithm_version.algorithm, prepared.dataset, chain, learnt)


def _pointing(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the findings, an unknown batch with the way that leads on."""
    way = (
        " Add it to the frozen model by the documented step (harmonization-runs/{id}/add-batch/, with a reason), or"
        " amend the plan and fit a new version."
    )
    return tuple(
        replace(finding, message=finding.message + way) if finding.code == "unknown_batch" else finding
        for finding in findings
    )


def _summary(
    row: HarmonizationRun,
    parsed: PlanDocument,
    prepared: Prepared,
    outcome: Outcome,
    models: Mapping[str, Model],
) -> dict[str, Any]:
    result = outcome.result.main
    outside = [finding for finding in result.findings if finding.code == "covariate_out_of_range"]
    summary = {
        "values_digest": values_digest(result.values),
        "flags": {name: list(items) for name, items in result.flags.items()},
        "iterations": {pool: dict(counts) for pool, counts in result.iterations.items()},
        "rows": len(prepared.dataset.rows),
        "features": len(result.model.features),
        "excluded": dict(prepared.decisions.excluded),
        "blinded": parsed.blinded,
        "application": {
            "model_of": str(row.model_of_id),
            "model_digest": row.model_of.model_digest if row.model_of else "",
            "scans_by_batch": dict(sorted(Counter(map(str, prepared.dataset.batches)).items())),
            "out_of_range": {
                finding.columns[0]: list(finding.rows) for finding in outside if finding.columns
            },
            "added_batch": row.added_batch,
            "former_parameters_unchanged": require_kept(models[MAIN], result.model),
        },
    }
    if row.rerun_of_id:
        summary["equality"] = equality_of(row, outcome)
    return summary


def require_kept(former: Model, model: Model) -> bool:
    """Return True where every number of `former` stands in `model` bit for bit. Raises Conflict where one does not."""
    same = model.batches[: len(former.batches)] == former.batches and model.features == former.features
    for name, array in former.arrays.items():
        part = model.arrays[name][tuple(slice(0, length) for length in array.shape)]
        same = same and part.shape == array.shape and _bits(part) == _bits(array)
    if not same:
        raise Conflict("A parameter of the frozen model changed; nothing was stored. Tell the administrator.")
    return True


def _bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _outputs(
    row: HarmonizationRun, prepared: Prepared, chain: ChainResult, summary: Mapping[str, Any]
) -> Changes:
    identity = {
        "run": str(row.pk),
        "kind": row.kind,
        "exploratory_reason": row.exploratory_reason,
        "mode": row.mode,
        "model_of": str(row.model_of_id),
    }
    models = {step: save_model(model) for step, model in chain.models.items()}
    data_digest, stored = put_harmonized(row, prepared.dataset, chain.main)
    return {
        "data_digest": data_digest,
        "model_digest": put_blob(zip_model(models[MAIN], identity, models.get(CALIBRATION))),
        "summary": {**summary, **stored},
    }
