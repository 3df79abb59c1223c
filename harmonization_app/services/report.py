"""The report of a run as HTML, PDF and JSON; primary and exploratory cannot be mistaken for each other.

Deterministic: nothing in it depends on when it is made, so equal runs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

from harmonization_app.models import AlgorithmVersion, HarmonizationRun
from harmonization_app.selectors import run as selectors
from harmonization_app.selectors.algorithm import signatures_of
from harmonization_app.selectors.plan import grouped, specification_rows
from harmonization_app.selectors.run_evidence import batch_rows, evidence_of, headline_of, limits_of
from harmonization_app.services import figures
from harmonization_app.services.run import load_diagnostics
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput
from hub.core.signatures.models import ElectronicSignature

FORMS = ("html", "pdf", "json")
SCHEMA_NAME = "hub.harmonization-report/1"
# Rows of a table of features on paper; all of them are in the JSON report.
MOST_ROWS = 200
# Stands at head and foot of every page.
NOTICE: dict[str, str] = {
    "exploratory": "EXPLORATORY (post hoc): not for primary analysis",
    "primary": "PRIMARY: under a locked plan, before data lock",
}


def render_report(run: HarmonizationRun, form: str) -> tuple[bytes, str]:
    """Return the report and its content type. Raises InvalidInput for an unknown form."""
    if form not in FORMS:
        raise InvalidInput(
            f"A report comes as one of: {', '.join(FORMS)}.",
            errors=[{"field": "as", "message": f"{form!r} is not one of them"}],
        )
    if form == "json":
        return canonical_json(report_document(run)), "application/json"
    html = render_to_string("harmonization/report.html", report_context(run))
    if form == "html":
        return html.encode(), "text/html; charset=utf-8"
    from weasyprint import HTML

    identifier = hashlib.sha256(html.encode()).digest()
    return HTML(string=html, url_fetcher=_nothing_from_outside).write_pdf(pdf_identifier=identifier), (
        "application/pdf"
    )


def _nothing_from_outside(url: str, *args: Any, **kwargs: Any) -> Any:
    raise ValueError(f"The report is self-contained and fetches nothing: {url}")


@cache
def report_style() -> str:
    """Return the report's style sheet, which every report carries in itself."""
    return (Path(settings.BASE_DIR) / "static" / "css" / "report.css").read_text(encoding="utf-8")


def style_hash() -> str:
    """Return the Content-Security-Policy source that allows the report's own style and no other."""
    digest = hashlib.sha256(report_style().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def report_document(run: HarmonizationRun) -> dict[str, Any]:
    """Return everything the report says, as JSON."""
    diagnostics = load_diagnostics(run)
    return {
        "schema": SCHEMA_NAME,
        "notice": NOTICE[run.kind],
        **_run_facts(run),
        "plan": _plan_facts(run),
        "specification": run.specification,
        "algorithm": _algorithm_facts(run.algorithm_version),
        "feature_set": {
            "id": str(run.feature_set_id),
            "name": run.feature_set.name,
            "digest": run.feature_set.digest,
            "rows": run.feature_set.row_count,
            "columns": run.feature_set.column_count,
            "missing": run.feature_set.missing_count,
        },
        "row_flow": [
            {"title": step.title, "rows": step.rows, "note": step.note} for step in selectors.row_flow(run)
        ],
        "row_decisions": run.row_decisions,
        "gate": run.gate,
        "headline": headline_of(diagnostics) if diagnostics else None,
        "batches": [asdict(row) for row in batch_rows(run, diagnostics)],
        "limits": limits_of(run, diagnostics),
        "memory_estimate": run.estimate,
        "summary": run.summary,
        "diagnostics": diagnostics,
        "environment": run.environment,
        "digests": digests_of(run),
    }


def _run_facts(run: HarmonizationRun) -> dict[str, Any]:
    return {
        "run": str(run.pk),
        "trial": run.trial.code,
        "kind": run.kind,
        "exploratory_reason": run.exploratory_reason,
        "state": run.state,
        "reason": run.reason,
        "created_at": _time(run.created_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
        "rerun_of": str(run.rerun_of_id) if run.rerun_of_id else None,
        "mode": run.mode,
        "model_of": str(run.model_of_id) if run.model_of_id else None,
        "added_batch": run.added_batch,
        "step_reason": run.step_reason,
    }


def _plan_facts(run: HarmonizationRun) -> dict[str, Any] | None:
    plan = run.plan
    if plan is None:
        return None
    return {
        "id": str(plan.pk),
        "name": plan.name,
        "title": plan.title,
        "version": plan.version,
        "digest": run.plan_digest,
        "signature": _signature(plan.signature),
    }


def _algorithm_facts(version: AlgorithmVersion) -> dict[str, Any]:
    return {
        "algorithm": version.algorithm,
        "version": version.version,
        "code_digest": version.code_digest,
        "state": version.state,
        "environment_digest": version.environment_digest,
        "signature": _signature(version.signature),
        "second_signature": _signature(version.second_signature),
    }


def digests_of(run: HarmonizationRun) -> dict[str, str]:
    """Return the digest of everything that went in and came out."""
    return {
        "plan": run.plan_digest,
        "algorithm_code": run.algorithm_version.code_digest,
        "feature_set": run.feature_set.digest,
        "input": run.input_digest,
        "harmonized_data": run.data_digest,
        "model": run.model_digest,
        "diagnostics": run.diagnostics_digest,
    }


def _signature(signature: ElectronicSignature | None) -> dict[str, Any] | None:
    if signature is None:
        return None
    return {
        "printed_name": signature.printed_name,
        "meaning": signature.meaning,
        "signed_at": signature.signed_at.isoformat(),
        "second_factor": signature.second_factor,
        "digest": signature.object_digest,
    }


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment else None


def report_context(run: HarmonizationRun) -> dict[str, Any]:
    """Return what the report's template shows."""
    diagnostics = load_diagnostics(run)
    context = {
        "run": run,
        "style": mark_safe(report_style()),
        "exploratory": run.kind == HarmonizationRun.Kind.EXPLORATORY,
        "specification": specification_rows(run.specification),
        "flow": selectors.row_flow(run),
        "gate": grouped(run.gate),
        "digests": digests_of(run),
        "diagnostics": diagnostics,
        "limits": limits_of(run, diagnostics),
        "notice": NOTICE[run.kind],
        "signatures": signatures_of(run.algorithm_version),
    }
    return context | (_results(run, diagnostics) if diagnostics else {})


def _results(run: HarmonizationRun, diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    effects = selectors.feature_effects(diagnostics, run.feature_set)
    in_sample = diagnostics.get("in_sample") or {}
    before, after = ((in_sample.get(stage) or {}).get("projection") for stage in ("before", "after"))
    held_out = diagnostics.get("held_out") or {}
    drawn: dict[str, str] = {
        "effects_figure": figures.effect_figure(effects, selectors.overall_noise_floor(diagnostics)),
        "held_out_figure": figures.held_out_figure(held_out) if held_out.get("evaluable") else "",
        "projection_figure": _projection_figure(before, after),
    }
    return {
        **evidence_of(run, diagnostics),
        "effects": effects[:MOST_ROWS],
        "effects_left_out": max(0, len(effects) - MOST_ROWS),
        "covariates": [
            {**choice, "parts": _covariate_parts(run, diagnostics, choice)}
            for choice in selectors.covariate_choices(diagnostics, run.feature_set)
        ],
        **{name: mark_safe(svg) for name, svg in drawn.items()},
    }


def _projection_figure(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """Return the figure; empty where a stage has fewer than two components."""
    if before is None or after is None or min(len(before["explained"]), len(after["explained"])) < 2:
        return ""
    return figures.projection_figure(before, after)


def _covariate_parts(
    run: HarmonizationRun, diagnostics: Mapping[str, Any], choice: Mapping[str, Any]
) -> list[dict[str, Any]]:
    parts = []
    for unit in choice["units"]:
        rows = selectors.covariate_rows(diagnostics, run.feature_set, choice["name"], unit)
        svg = figures.covariate_figure(rows, choice["name"], unit)
        parts.append({"unit": unit, "rows": rows, "figure": mark_safe(svg)})
    return parts
