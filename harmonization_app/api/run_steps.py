"""What follows a run, by API: its export, its frozen model applied to new scans, a batch added to that model."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from harmonization_app.api.features import visible_or_refuse
from harmonization_app.api.serializers import RunSerializer
from harmonization_app.models import FeatureSet
from harmonization_app.services import model_application, run_export
from qc_app.api.common import validated
from sites_app.api.raw import ZipRenderer, streamed


class ModelApplySerializer(serializers.Serializer):
    feature_set = serializers.UUIDField()


class BatchAddSerializer(serializers.Serializer):
    feature_set = serializers.UUIDField()
    batch = serializers.CharField(max_length=200)
    reason = serializers.CharField(max_length=1000)


class RunStepsMixin:
    """The routes `apply/`, `add-batch/` and `export/` of a run."""

    request: Any
    get_object: Any

    @extend_schema(request=ModelApplySerializer, responses={202: RunSerializer})
    @action(detail=True, methods=["post"])
    def apply(self, request: Request, pk: Any = None) -> Response:
        """Correct a feature set by the frozen model of this run, each scan with its own covariates."""
        run = self.get_object()
        data = validated(ModelApplySerializer, request)
        features = visible_or_refuse(FeatureSet, request.user, data["feature_set"], "feature_set")
        row = model_application.apply_model(actor=request.user, run=run, feature_set=features)
        return Response(RunSerializer(row).data, status=202)

    @extend_schema(request=BatchAddSerializer, responses={202: RunSerializer})
    @action(detail=True, methods=["post"], url_path="add-batch")
    def add_batch(self, request: Request, pk: Any = None) -> Response:
        """Add one batch to the frozen model of this run; the parameters of the others stay bit for bit."""
        run = self.get_object()
        data = validated(BatchAddSerializer, request)
        data["feature_set"] = visible_or_refuse(FeatureSet, request.user, data["feature_set"], "feature_set")
        row = model_application.add_batch(actor=request.user, run=run, **data)
        return Response(RunSerializer(row).data, status=202)

    @extend_schema(
        responses={(200, "application/zip"): OpenApiResponse(OpenApiTypes.BINARY, description="The package")}
    )
    @action(detail=True, renderer_classes=[ZipRenderer, JSONRenderer])
    def export(self, request: Request, pk: Any = None) -> StreamingHttpResponse:
        """Download everything of a run with the code that repeats it offline: `python3 rerun.py`."""
        name, pieces, size = run_export.export_run(actor=request.user, run=self.get_object())
        response = streamed(request, pieces, name)
        response["Content-Length"] = str(size)
        response["X-Content-Type-Options"] = "nosniff"
        return response
