"""The report of a run as an HTTP answer that shows itself whole under the strict Content-Security-Policy."""

from __future__ import annotations

from django.http import HttpResponse

from harmonization_app.models import HarmonizationRun
from harmonization_app.services.report import render_report, style_hash


def report_answer(run: HarmonizationRun, form: str) -> HttpResponse:
    """Return the report as html (shown), pdf or json (downloaded). Raises InvalidInput, NotFound."""
    content, content_type = render_report(run, form)
    response = HttpResponse(content, content_type=content_type)
    response["X-Content-Type-Options"] = "nosniff"
    if form == "html":
        # The report carries its style in itself; the policy allows exactly that text and no other.
        response._csp_update = {"style-src": [style_hash()]}  # type: ignore[attr-defined]
    else:
        response["Content-Disposition"] = f'attachment; filename="report-{run.kind}-{run.pk}.{form}"'
    return response
