"""What was judged and measured of series; pre-check of headers; metrics, changes and drift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django_filters
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hub.core.api.permissions import LoggedIn
from hub.core.api.views import HubViewSet
from hub.core.csv_export import csv_response
from hub.core.errors import NotFound
from qc_app.api.common import (
    CsvRenderer,
    PngRenderer,
    ReasonInput,
    ScopedFilter,
    csv_schema,
    get_visible,
    validated,
)
from qc_app.metrics.registry import METRICS, METRICS_VERSION
from qc_app.models import MetricValue
from qc_app.models.check import QCOutcome
from qc_app.selectors import checks
from qc_app.services import check as check_services
from qc_app.services.precheck import precheck
from sites_app.models import Series, Submission
from sites_app.selectors.series import received_series


class VersionSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    version = serializers.IntegerField()
    digest = serializers.CharField()


class VerdictSerializer(serializers.Serializer):
    """The judgement of one rule."""

    rule = serializers.CharField()
    parameter = serializers.CharField()
    label = serializers.CharField()
    expected = serializers.JSONField()
    observed = serializers.JSONField(allow_null=True)
    unit = serializers.CharField()
    source = serializers.CharField()
    outcome = serializers.CharField(help_text="compliant, deviant or not_evaluable")
    severity = serializers.CharField(help_text="info, minor, major or critical")
    detail = serializers.CharField()
    action = serializers.CharField()
    instances = serializers.ListField(child=serializers.CharField())
    protocol = VersionSerializer(allow_null=True)


class SeriesVerdictsSerializer(serializers.Serializer):
    """A series' protocol judgement. `outcome` is compliant only when every verdict is."""

    series = serializers.UUIDField()
    state = serializers.CharField()
    outcome = serializers.CharField()
    reason = serializers.CharField()
    expected_series = serializers.CharField()
    match = serializers.JSONField()
    protocol = VersionSerializer(allow_null=True)
    replaced_by = serializers.UUIDField(allow_null=True)
    verdicts = VerdictSerializer(many=True)


class SeriesMetricSerializer(serializers.Serializer):
    """One metric with its judgement; without bounds it is not evaluable, with the reason."""

    name = serializers.CharField()
    label = serializers.CharField()
    value = serializers.FloatField(allow_null=True)
    unit = serializers.CharField()
    outcome = serializers.CharField(help_text="pass, warn, fail or not_evaluable")
    reason = serializers.CharField()
    threshold = serializers.JSONField(allow_null=True)
    slices = serializers.ListField(child=serializers.IntegerField())
    profile = VersionSerializer(allow_null=True)
    algorithm_version = serializers.CharField()


class SeriesMetricsSerializer(serializers.Serializer):
    series = serializers.UUIDField()
    state = serializers.CharField()
    outcome = serializers.CharField()
    reason = serializers.CharField()
    metrics = SeriesMetricSerializer(many=True)


class _SeriesView(APIView):
    permission_classes = (LoggedIn,)

    def series(self, request: Request, pk: Any) -> Series:
        series = received_series(request.user).filter(pk=pk).first()
        if series is None:
            raise NotFound("There is no series with this id that you may see.")
        return series


class SeriesVerdictsView(_SeriesView):
    @extend_schema(operation_id="series_verdicts", responses=SeriesVerdictsSerializer)
    def get(self, request: Request, pk: Any) -> Response:
        return Response(checks.verdicts_of(self.series(request, pk)))


class SeriesMetricsView(_SeriesView):
    @extend_schema(operation_id="series_metrics", responses=SeriesMetricsSerializer)
    def get(self, request: Request, pk: Any) -> Response:
        return Response(checks.metrics_of(self.series(request, pk)))


class SeriesPreviewView(_SeriesView):
    renderer_classes = (PngRenderer, JSONRenderer)

    @extend_schema(
        operation_id="series_preview",
        responses={
            (200, "image/png"): OpenApiResponse(OpenApiTypes.BINARY, description="Mosaic of the slices")
        },
    )
    def get(self, request: Request, pk: Any) -> HttpResponse:
        content = checks.preview_of(self.series(request, pk))
        headers = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}
        return HttpResponse(content, content_type="image/png", headers=headers)


class SeriesRecheckView(_SeriesView):
    """Have a series judged again by the versions in force now."""

    @extend_schema(operation_id="series_recheck", request=ReasonInput, responses={202: None})
    def post(self, request: Request, pk: Any) -> Response:
        given = validated(ReasonInput, request)
        series = check_services.request_recheck(actor=request.user, series=self.series(request, pk), **given)
        return Response({"series": str(series.pk), "state": series.state}, status=202)


class RefusedHeaderSerializer(serializers.Serializer):
    index = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    action = serializers.CharField()


class PrecheckSerializer(serializers.Serializer):
    """What the hub would say of one series; `refused` names headers of files that it would not accept."""

    series_instance_uid = serializers.CharField()
    modality = serializers.CharField()
    headers = serializers.IntegerField()
    expected_series = serializers.CharField()
    outcome = serializers.CharField()
    reason = serializers.CharField()
    verdicts = VerdictSerializer(many=True)
    refused = RefusedHeaderSerializer(many=True)


class PrecheckAnswerSerializer(serializers.Serializer):
    series = PrecheckSerializer(many=True)


class PrecheckView(APIView):
    """The verdicts that the hub will give, from headers in the DICOM JSON model (PS3.18 F); nothing is stored."""

    permission_classes = (LoggedIn,)

    @extend_schema(
        operation_id="submissions_precheck",
        request={"application/json": {"type": "array", "items": {"type": "object"}}},
        responses=PrecheckAnswerSerializer,
    )
    def post(self, request: Request, pk: Any) -> Response:
        submission = get_visible(Submission, request.user, pk)
        return Response({"series": precheck(actor=request.user, submission=submission, headers=request.data)})


class MetricValueSerializer(serializers.ModelSerializer):
    site_code = serializers.CharField(source="site.code", read_only=True)
    subject = serializers.UUIDField(source="series.subject_id", read_only=True)
    visit = serializers.UUIDField(source="series.visit_id", read_only=True)

    class Meta:
        model = MetricValue
        fields = [
            "id", "trial", "site", "site_code", "subject", "visit", "series", "scanner", "expected_key", "name",
            "value", "unit", "outcome", "acquired_on", "received_at",
        ]  # fmt: skip
        read_only_fields = fields


class MetricValueFilter(ScopedFilter):
    series = django_filters.UUIDFilter(field_name="series_id")
    scanner = django_filters.UUIDFilter(field_name="scanner_id")
    subject = django_filters.UUIDFilter(field_name="series__subject_id")
    visit = django_filters.UUIDFilter(field_name="series__visit_id")
    name = django_filters.CharFilter()
    expected_key = django_filters.CharFilter()
    outcome = django_filters.MultipleChoiceFilter(choices=QCOutcome.choices)


class MetricDefinitionSerializer(serializers.Serializer):
    name = serializers.CharField()
    label = serializers.CharField()
    unit = serializers.CharField()
    better = serializers.CharField(help_text="higher, lower, target or none")
    modalities = serializers.ListField(child=serializers.CharField())
    formula = serializers.CharField()
    citation = serializers.CharField()
    algorithm_version = serializers.CharField()


_CSV = ["site_code", "subject_code", "visit_code", "series", "scanner", "expected_key", "name", "value", "unit",
        "outcome", "received_at"]  # fmt: skip


class MetricViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Every metric of the current check of each series."""

    queryset = MetricValue.objects.none()
    serializer_class = MetricValueSerializer
    filterset_class = MetricValueFilter
    ordering_fields = ["received_at", "name", "value"]

    def get_queryset(self) -> Any:
        return MetricValue.objects.visible_to(self.request.user).select_related("site", "series")

    @extend_schema(responses=MetricDefinitionSerializer(many=True), filters=False)
    @action(detail=False, methods=["get"], pagination_class=None, filter_backends=[])
    def definitions(self, request: Request) -> Response:
        return Response(
            [
                {
                    "name": item.name,
                    "label": item.label,
                    "unit": item.unit,
                    "better": item.better,
                    "modalities": list(item.modalities),
                    "formula": item.formula,
                    "citation": item.citation,
                    "algorithm_version": METRICS_VERSION,
                }
                for item in METRICS.values()
            ]
        )

    @csv_schema
    @action(detail=False, methods=["get"], pagination_class=None, renderer_classes=[CsvRenderer])
    def export(self, request: Request) -> Any:
        rows = self.filter_queryset(self.get_queryset())
        rows = rows.select_related("site", "series__subject", "series__visit__definition", "scanner")
        return csv_response("metrics", _CSV, _csv_rows(rows))


def _csv_rows(rows: Any) -> Iterator[list[Any]]:
    for row in rows.iterator(chunk_size=1000):
        yield [
            row.site.code,
            row.series.subject.code,
            row.series.visit.definition.code,
            row.series_id,
            row.scanner,
            row.expected_key,
            row.name,
            row.value,
            row.unit,
            row.outcome,
            row.received_at.isoformat(),
        ]
