"""Export packages by API: ask for one, follow it, download it."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from harmonization_app.api.features import visible_or_refuse
from harmonization_app.models import Export, ExportState
from harmonization_app.services import export as services
from hub.core.api.views import HubViewSet
from hub.core.models import Job
from qc_app.api.common import validated
from sites_app.api.raw import ZipRenderer, streamed
from sites_app.models import Trial


class ExportSerializer(serializers.ModelSerializer):
    """An export. `locked` says whether its package is of locked data; `package` is where it is, once it is."""

    progress = serializers.SerializerMethodField()
    package = serializers.SerializerMethodField()

    class Meta:
        model = Export
        fields = [
            "id",
            "trial",
            "include_images",
            "locked",
            "state",
            "reason",
            "progress",
            "job_id",
            "manifest_digest",
            "package_sha256",
            "size",
            "package",
            "created_by",
            "created_at",
            "finished_at",
        ]
        read_only_fields = fields

    def get_progress(self, row: Export) -> float:
        if row.is_final:
            return 1.0
        job = Job.objects.filter(pk=row.job_id).only("progress").first()
        return job.progress if job else 0.0

    def get_package(self, row: Export) -> str | None:
        return f"/api/v1/exports/{row.pk}/package/" if row.state == ExportState.SUCCEEDED else None


class ExportRequestSerializer(serializers.Serializer):
    trial = serializers.UUIDField()
    include_images = serializers.BooleanField(default=False)


class ExportViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Packages of a trial with manifest, versions, tables, records, audit trail and a verifier."""

    queryset = Export.objects.none()
    serializer_class = ExportSerializer
    filterset_fields = ["trial", "state", "locked", "include_images"]
    ordering_fields = ["created_at"]

    def get_queryset(self) -> Any:
        return services.visible_exports(self.request.user).select_related("trial")

    @extend_schema(request=ExportRequestSerializer, responses={202: ExportSerializer})
    def create(self, request: Request) -> Response:
        data = validated(ExportRequestSerializer, request)
        trial = visible_or_refuse(Trial, request.user, data["trial"], "trial")
        row = services.start_export(actor=request.user, trial=trial, include_images=data["include_images"])
        return Response(ExportSerializer(row).data, status=202)

    @extend_schema(
        responses={(200, "application/zip"): OpenApiResponse(OpenApiTypes.BINARY, description="The package")}
    )
    @action(detail=True, renderer_classes=[ZipRenderer, JSONRenderer])
    def package(self, request: Request, pk: Any = None) -> StreamingHttpResponse:
        """Download the package as it was made and verified."""
        row = self.get_object()
        pieces = services.open_package(actor=request.user, export=row)
        response = streamed(request, pieces, services.package_name(row))
        response["Content-Length"] = str(row.size)
        response["X-Content-Type-Options"] = "nosniff"
        return response
