"""Carrying out a harmonization run: prepare, gate, harmonize, diagnose, cross-check, store."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.utils import timezone

from harmonization_app.algorithms.base import Dataset, Result
from harmonization_app.algorithms.environment import numerical_environment, one_blas_thread
from harmonization_app.algorithms.model import save_model
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.algorithms.verification.crosscheck import cross_check
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.plan_document import PlanDocument, parse_plan
from harmonization_app.services.algorithm import DigestDiffers, require_present_code
from harmonization_app.services.preparation import prepare_dataset
from harmonization_app.services.run import FINAL, finish_run
from harmonization_app.services.run_output import (
    dataset_digest,
    harmonized_csv,
    plain_json,
    read_harmonized,
    values_digest,
    zip_model,
)
from hub.core.canonical import canonical_json
from hub.core.errors import HubError
from hub.core.jobs.heartbeat import JobContext
from hub.core.storage.blobs import get_blob, put_blob


def execute_run(context: JobContext, *, run_id: str) -> None:
    """Carry out a queued run; refused by the gate, failed and succeeded are all final and kept."""
    row = HarmonizationRun.objects.select_related("feature_set", "algorithm_version", "trial").get(pk=run_id)
    if row.state in FINAL:
        return
    HarmonizationRun.objects.filter(pk=run_id).update(state=RunState.RUNNING, started_at=timezone.now())
    with one_blas_thread():
        environment = numerical_environment()
        _require_locked_digests(row, environment.digest)
        parsed = parse_plan(row.specification)
        dataset = prepare_dataset(parsed, row.feature_set)
        algorithm = get_algorithm(parsed.algorithm)
        context.progress(0.1, "checking the assumptions")
        findings = algorithm.validate(dataset, parsed.specification)
        changes: dict[str, Any] = {
            "gate": [finding.to_json() for finding in findings],
            "environment": environment.to_json(),
            "input_digest": dataset_digest(dataset),
        }
        if stops(findings):
            refusal = " ".join(finding.message for finding in findings if finding.severity == "stop")
            finish_run(row, RunState.REFUSED, refusal, changes)
            return
        context.progress(0.3, "estimating the batch effects")
        result = algorithm.harmonize(dataset, parsed.specification)
        context.progress(0.6, "diagnosing before and after")
        report = algorithm.diagnose(dataset, parsed.specification, result)
        changes |= _outputs(row, parsed, dataset, result, report.to_json())
    context.progress(0.95, "storing the results")
    finish_run(row, RunState.SUCCEEDED, "", changes)


def _require_locked_digests(row: HarmonizationRun, environment_digest: str) -> None:
    """Raise DigestDiffers where code or environment is not what was locked; exploratory runs need the code."""
    version = row.algorithm_version
    require_present_code(version)
    if row.kind == HarmonizationRun.Kind.PRIMARY and version.environment_digest != environment_digest:
        raise DigestDiffers(
            f"{version} was locked in another numerical environment ({version.environment_digest[:12]}…, here"
            f" {environment_digest[:12]}…). Run it on a worker like the one it was verified on, or verify and lock"
            " a version for this environment."
        )


def _outputs(
    row: HarmonizationRun, parsed: PlanDocument, dataset: Dataset, result: Result, diagnostics: dict[str, Any]
) -> dict[str, Any]:
    check = _cross_check(parsed, dataset, result)
    identity = {"run": str(row.pk), "kind": row.kind, "exploratory_reason": row.exploratory_reason}
    summary = {
        "values_digest": values_digest(result.values),
        "flags": {name: list(items) for name, items in result.flags.items()},
        "iterations": {pool: dict(counts) for pool, counts in result.iterations.items()},
        "cross_check": check,
        "rows": len(dataset.rows),
        "features": len(result.model.features),
        "excluded": dict(parsed.exclude_rows),
    }
    if row.rerun_of_id:
        summary["equality"] = _equality(row, result)
    return {
        "summary": summary,
        "data_digest": put_blob(harmonized_csv(row, dataset, result)),
        "model_digest": put_blob(zip_model(save_model(result.model), identity)),
        "diagnostics_digest": put_blob(canonical_json({**identity, **plain_json(diagnostics)})),
    }


def _cross_check(parsed: PlanDocument, dataset: Dataset, result: Result) -> dict[str, Any]:
    """Compute the result a second time by plain least squares; say so where that is not possible."""
    try:
        return cross_check(dataset, result, get_algorithm(parsed.algorithm).tolerance_sd).to_json()
    except HubError as error:
        return {"passed": None, "reason": error.detail}


def _equality(row: HarmonizationRun, result: Result) -> dict[str, Any]:
    """Compare a rerun with its original: equal bits, else the largest difference in feature SD."""
    original = HarmonizationRun.objects.get(reruns=row)
    bitwise = original.summary.get("values_digest") == values_digest(result.values)
    iterations = {pool: dict(counts) for pool, counts in result.iterations.items()}
    answer: dict[str, Any] = {
        "of": str(original.pk),
        "bitwise": bitwise,
        "iterations_equal": original.summary.get("iterations") == iterations,
    }
    if not bitwise:
        former = read_harmonized(get_blob(original.data_digest), len(result.values[0]))
        sd = np.nanstd(result.values, axis=0)
        answer["max_difference_sd"] = float(
            np.nanmax(np.abs(former - result.values) / np.where(sd > 0, sd, 1.0))
        )
    return answer
