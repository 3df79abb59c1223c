"""The report of a run as HTML, PDF and JSON; primary and exploratory cannot be mistaken for each other.

Deterministic: nothing in it depends on when it is made, so equal runs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

from harmonization_app.models import HarmonizationRun
from harmonization_app.selectors import run as selectors
from harmonization_app.selectors.plan import grouped, specification_rows
from harmonization_app.services import figures
from harmonization_app.services.run import load_diagnostics
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput
from hub.core.signatures.models import ElectronicSignature

FORMS = ("html", "pdf", "json")
SCHEMA_NAME = "hub.harmonization-report/1"


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
    version, plan = run.algorithm_version, run.plan
    return {
        "schema": SCHEMA_NAME,
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
        "plan": None
        if plan is None
        else {
            "id": str(plan.pk),
            "name": plan.name,
            "title": plan.title,
            "version": plan.version,
            "digest": run.plan_digest,
            "signature": _signature(plan.signature),
        },
        "specification": run.specification,
        "algorithm": {
            "algorithm": version.algorithm,
            "version": version.version,
            "code_digest": version.code_digest,
            "state": version.state,
            "environment_digest": version.environment_digest,
            "signature": _signature(version.signature),
        },
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
        "gate": run.gate,
        "summary": run.summary,
        "diagnostics": load_diagnostics(run),
        "environment": run.environment,
        "digests": digests_of(run),
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
    }
    return context | (_results(run, diagnostics) if diagnostics else {})


def _results(run: HarmonizationRun, diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    effects = selectors.feature_effects(diagnostics, run.feature_set)
    before = diagnostics["in_sample"]["before"].get("projection")
    after = diagnostics["in_sample"]["after"].get("projection")
    held_out = diagnostics["held_out"]
    drawn = {
        "effects_figure": figures.effect_figure(effects, selectors.overall_noise_floor(diagnostics)),
        "held_out_figure": figures.held_out_figure(held_out) if held_out["evaluable"] else "",
        "projection_figure": figures.projection_figure(before, after)
        if _two_components(before, after)
        else "",
    }
    return {
        "effects": effects,
        "covariates": [
            {**choice, "parts": _covariate_parts(run, diagnostics, choice)}
            for choice in selectors.covariate_choices(diagnostics, run.feature_set)
        ],
        **{name: mark_safe(svg) for name, svg in drawn.items()},
    }


def _two_components(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> bool:
    return all(stage is not None and len(stage["explained"]) > 1 for stage in (before, after))


def _covariate_parts(
    run: HarmonizationRun, diagnostics: Mapping[str, Any], choice: Mapping[str, Any]
) -> list[dict[str, Any]]:
    parts = []
    for unit in choice["units"]:
        rows = selectors.covariate_rows(diagnostics, run.feature_set, choice["name"], unit)
        svg = figures.covariate_figure(rows, choice["name"], unit)
        parts.append({"unit": unit, "rows": rows, "figure": mark_safe(svg)})
    return parts
