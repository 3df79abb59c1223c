"""The report of a run as HTML, PDF and JSON; primary and exploratory cannot be mistaken for each other."""

from __future__ import annotations

from typing import Any

from django.template.loader import render_to_string

from harmonization_app.models import HarmonizationRun
from harmonization_app.services.run import load_diagnostics
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput

FORMS = ("html", "pdf", "json")


def render_report(run: HarmonizationRun, form: str) -> tuple[bytes, str]:
    """Return the report and its content type. Raises InvalidInput for an unknown form."""
    if form not in FORMS:
        raise InvalidInput(f"A report comes as one of: {', '.join(FORMS)}.")
    facts = report_facts(run)
    if form == "json":
        return canonical_json(facts["json"]), "application/json"
    html = render_to_string("harmonization/report.html", facts)
    if form == "html":
        return html.encode(), "text/html; charset=utf-8"
    from weasyprint import HTML

    return HTML(string=html).write_pdf(), "application/pdf"


def report_facts(run: HarmonizationRun) -> dict[str, Any]:
    """Return what the report's template shows."""
    diagnostics = load_diagnostics(run)
    return {
        "run": run,
        "diagnostics": diagnostics,
        "json": {"run": str(run.pk), "kind": run.kind, "state": run.state, "diagnostics": diagnostics},
    }
