"""Harmonization plans, runs and the data lock by API."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from harmonization_app.api.comparison import ComparisonMixin
from harmonization_app.api.features import visible_or_refuse
from harmonization_app.api.run_steps import RunStepsMixin
from harmonization_app.api.serializers import (
    ChecklistItemSerializer,
    DataLockOpenSerializer,
    DataLockSerializer,
    GateSerializer,
    PlanChangeSerializer,
    PlanCheckSerializer,
    PlanSerializer,
    PlanWriteSerializer,
    ReasonSerializer,
    RunSerializer,
    RunStartSerializer,
    SignedSerializer,
)
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import DataLock, FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.permissions import readable
from harmonization_app.services import data_lock as lock_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services.lock_checklist import checklist
from harmonization_app.views.report_answer import report_answer
from harmonization_app.views.table_answer import Answer, harmonized_answer
from hub.core.api.views import HubViewSet
from hub.core.errors import NotFound
from hub.core.storage.blobs import get_blob
from qc_app.api.common import CsvRenderer, HtmlRenderer, PdfRenderer, validated
from sites_app.api.raw import ZipRenderer
from sites_app.models import Trial


class PlanViewSet(ComparisonMixin, mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Pre-specified harmonizations: draft, check against a feature set, lock with a signature, amend."""

    queryset = HarmonizationPlan.objects.none()
    serializer_class = PlanSerializer
    filterset_fields = ["trial", "name", "state"]
    ordering_fields = ["created_at", "version"]
    idempotent_actions = ("create", "compare", "amend")

    def get_queryset(self) -> Any:
        return readable(HarmonizationPlan, self.request.user)

    @extend_schema(request=PlanWriteSerializer, responses={201: PlanSerializer})
    def create(self, request: Request) -> Response:
        data = validated(PlanWriteSerializer, request)
        trial = visible_or_refuse(Trial, request.user, data["trial"], "trial")
        row = plan_services.save_draft(actor=request.user, trial=trial, document=data["document"])
        return Response(PlanSerializer(row).data, status=201)

    @extend_schema(request=PlanChangeSerializer, responses=PlanSerializer)
    def partial_update(self, request: Request, pk: Any = None) -> Response:
        plan = self.get_object()
        data = validated(PlanChangeSerializer, request)
        row = plan_services.change_draft(actor=request.user, plan=plan, document=data["document"])
        return Response(PlanSerializer(row).data)

    @extend_schema(request=PlanChangeSerializer, responses=PlanSerializer)
    def update(self, request: Request, pk: Any = None) -> Response:
        return self.partial_update(request, pk)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: Any = None) -> Response:
        """Discard a draft that no run was made with."""
        plan_services.discard_draft(actor=request.user, plan=self.get_object())
        return Response(status=204)

    @extend_schema(request=PlanCheckSerializer, responses=GateSerializer)
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: Any = None) -> Response:
        plan = self.get_object()
        data = validated(PlanCheckSerializer, request)
        features = visible_or_refuse(FeatureSet, request.user, data["feature_set"], "feature_set")
        findings = plan_services.check_plan(actor=request.user, plan=plan, feature_set=features)
        return Response({"passes": not stops(findings), "findings": [item.to_json() for item in findings]})

    @extend_schema(request=SignedSerializer, responses=PlanSerializer)
    @action(detail=True, methods=["post"])
    def lock(self, request: Request, pk: Any = None) -> Response:
        data = validated(SignedSerializer, request)
        row = plan_services.lock_plan(actor=request.user, plan=self.get_object(), **data)
        return Response(PlanSerializer(row).data)

    @extend_schema(request=ReasonSerializer, responses={201: PlanSerializer})
    @action(detail=True, methods=["post"])
    def amend(self, request: Request, pk: Any = None) -> Response:
        data = validated(ReasonSerializer, request)
        row = plan_services.amend_plan(actor=request.user, plan=self.get_object(), **data)
        return Response(PlanSerializer(row).data, status=201)


class RunViewSet(RunStepsMixin, mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Harmonization runs: start, follow, read diagnostics, download, repeat."""

    queryset = HarmonizationRun.objects.none()
    serializer_class = RunSerializer
    filterset_fields = ["trial", "plan", "feature_set", "kind", "state", "mode", "model_of"]
    ordering_fields = ["created_at"]
    idempotent_actions = ("create", "rerun", "apply", "add_batch", "cancel")

    def get_queryset(self) -> Any:
        return readable(HarmonizationRun, self.request.user).select_related("algorithm_version")

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "with_diagnostics": self.action == "retrieve"}

    @extend_schema(request=RunStartSerializer, responses={202: RunSerializer})
    def create(self, request: Request) -> Response:
        data = validated(RunStartSerializer, request)
        user = request.user
        features = visible_or_refuse(FeatureSet, user, data["feature_set"], "feature_set")
        plan = visible_or_refuse(HarmonizationPlan, user, data["plan"], "plan") if data.get("plan") else None
        row = run_services.start_run(
            actor=user, feature_set=features, plan=plan, specification=data.get("specification")
        )
        return Response(RunSerializer(row).data, status=202)

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.BINARY})
    @action(detail=True, renderer_classes=[CsvRenderer, JSONRenderer])
    def data(self, request: Request, pk: Any = None) -> Answer:
        return harmonized_answer(request, self.get_object())

    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY})
    @action(detail=True, renderer_classes=[ZipRenderer, JSONRenderer])
    def model(self, request: Request, pk: Any = None) -> HttpResponse:
        run = self.get_object()
        return HttpResponse(
            _output(run.model_digest),
            content_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="model-{run.kind}-{run.pk}.zip"'},
        )

    @extend_schema(
        parameters=[
            OpenApiParameter("as", str, enum=["html", "pdf", "json"], description="form of the report")
        ],
        responses={(200, "text/html"): OpenApiTypes.STR, (200, "application/pdf"): OpenApiTypes.BINARY},
    )
    @action(detail=True, renderer_classes=[HtmlRenderer, PdfRenderer, JSONRenderer])
    def report(self, request: Request, pk: Any = None) -> HttpResponse:
        """Return the report in the form that `as` names, else as PDF to who accepts that alone, else as a page."""
        wanted = "pdf" if request.accepted_renderer.format == "pdf" else "html"
        return report_answer(self.get_object(), request.query_params.get("as", wanted))

    @extend_schema(request=None, responses={202: RunSerializer})
    @action(detail=True, methods=["post"])
    def rerun(self, request: Request, pk: Any = None) -> Response:
        row = run_services.rerun(actor=request.user, run=self.get_object())
        return Response(RunSerializer(row).data, status=202)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any = None) -> Response:
        row = run_services.cancel_run(actor=request.user, run=self.get_object())
        return Response(RunSerializer(row).data)


def _output(digest: str) -> bytes:
    if not digest:
        raise NotFound("This run has no such output: it has not succeeded.")
    return get_blob(digest)


class DataLockViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """The data lock of a trial: checklist, freeze, lock, manifest."""

    queryset = DataLock.objects.none()
    serializer_class = DataLockSerializer
    filterset_fields = ["trial", "state"]
    ordering_fields = ["created_at"]
    idempotent_actions = ("create", "freeze", "unfreeze")

    def get_queryset(self) -> Any:
        return readable(DataLock, self.request.user).select_related("trial")

    @extend_schema(request=DataLockOpenSerializer, responses={201: DataLockSerializer})
    def create(self, request: Request) -> Response:
        data = validated(DataLockOpenSerializer, request)
        trial = visible_or_refuse(Trial, request.user, data["trial"], "trial")
        row = lock_services.open_data_lock(actor=request.user, trial=trial)
        return Response(DataLockSerializer(row).data, status=201)

    @extend_schema(responses=ChecklistItemSerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=[])
    def checklist(self, request: Request, pk: Any = None) -> Response:
        items = checklist(self.get_object().trial)
        return Response(ChecklistItemSerializer(items, many=True).data)

    @extend_schema(request=None, responses=DataLockSerializer)
    @action(detail=True, methods=["post"])
    def freeze(self, request: Request, pk: Any = None) -> Response:
        row = lock_services.freeze(actor=request.user, data_lock=self.get_object())
        return Response(DataLockSerializer(row).data)

    @extend_schema(request=ReasonSerializer, responses=DataLockSerializer)
    @action(detail=True, methods=["post"])
    def unfreeze(self, request: Request, pk: Any = None) -> Response:
        data = validated(ReasonSerializer, request)
        row = lock_services.unfreeze(actor=request.user, data_lock=self.get_object(), **data)
        return Response(DataLockSerializer(row).data)

    @extend_schema(request=SignedSerializer, responses=DataLockSerializer)
    @action(detail=True, methods=["post"])
    def lock(self, request: Request, pk: Any = None) -> Response:
        data = validated(SignedSerializer, request)
        row = lock_services.lock_data(actor=request.user, data_lock=self.get_object(), **data)
        return Response(DataLockSerializer(row).data)

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True)
    def manifest(self, request: Request, pk: Any = None) -> Response:
        return Response(lock_services.read_manifest(self.get_object()))
