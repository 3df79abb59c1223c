"""Tables of measurements as HTTP answers: whole where they are text, by pieces where they are a matrix."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from rest_framework.request import Request

from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.services.feature_matrix import table_csv
from harmonization_app.services.harmonized_table import harmonized_csv_of, is_matrix, matrix_lines
from hub.core.storage.blobs import get_blob
from sites_app.api.raw import streamed

CSV_TYPE = "text/csv; charset=utf-8"
Answer = HttpResponse | StreamingHttpResponse


def feature_set_answer(request: Request | HttpRequest, row: FeatureSet) -> Answer:
    """Return the table of a feature set as a CSV download."""
    name = f"features-{row.digest[:12]}.csv"
    if row.origin == FeatureSet.Origin.MATRIX:
        return streamed(request, table_csv(row), name, CSV_TYPE)
    return _whole(get_blob(row.data_digest), name)


def harmonized_answer(request: Request | HttpRequest, run: HarmonizationRun) -> Answer:
    """Return the harmonized table of a run as a CSV download. Raises NotFound where it has none."""
    name = f"harmonized-{run.kind}-{run.pk}.csv"
    if is_matrix(run):
        return streamed(request, matrix_lines(run), name, CSV_TYPE)
    return _whole(harmonized_csv_of(run), name)


def _whole(content: bytes, name: str) -> HttpResponse:
    response = HttpResponse(content, content_type=CSV_TYPE)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
