"""Feature sets, algorithms and their versions by API."""

from __future__ import annotations

import json
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from harmonization_app.algorithms.registry import ALGORITHMS, describe, get_algorithm, source_digest
from harmonization_app.api.serializers import (
    AlgorithmSerializer,
    AlgorithmVersionSerializer,
    FeatureSetImportSerializer,
    FeatureSetSerializer,
    ReasonSerializer,
    SignedSerializer,
)
from harmonization_app.models import AlgorithmVersion, FeatureSet
from harmonization_app.permissions import readable
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import feature_matrix as matrix_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.views.table_answer import Answer, feature_set_answer
from harmonization_app.views.table_upload import matrix_file, read_table
from hub.core.api.records import JobSerializer
from hub.core.api.views import HubViewSet
from hub.core.errors import InvalidInput, NotFound
from qc_app.api.common import CsvRenderer, validated
from sites_app.models import Trial


def visible_or_refuse(model: Any, user: Any, pk: Any, field: str) -> Any:
    """Return the visible row named in a request's field. Raises InvalidInput naming the field."""
    rows = model.objects.visible_to(user) if model is Trial else readable(model, user)
    row = rows.filter(pk=pk).first()
    if row is None:
        raise InvalidInput(
            f"{field}: there is no such {model._meta.verbose_name} that you may see.",
            errors=[{"field": field, "message": "not found"}],
        )
    return row


class FeatureSetViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Immutable tables of measurements: import a CSV, or build one from QC metrics."""

    queryset = FeatureSet.objects.none()
    serializer_class = FeatureSetSerializer
    parser_classes = (MultiPartParser, JSONParser)
    filterset_fields = ["trial", "origin", "digest"]
    ordering_fields = ["created_at", "name"]

    def get_queryset(self) -> Any:
        return readable(FeatureSet, self.request.user)

    @extend_schema(request=FeatureSetImportSerializer, responses={201: FeatureSetSerializer})
    def create(self, request: Request) -> Response:
        data = validated(FeatureSetImportSerializer, request)
        trial = visible_or_refuse(Trial, request.user, data["trial"], "trial")
        if data.get("metrics"):
            row = feature_services.build_from_metrics(
                actor=request.user,
                trial=trial,
                name=data["name"],
                metrics=data["metrics"],
                expected_key=data.get("expected_key", ""),
            )
        elif data.get("matrix"):
            row = _import_matrix(request, trial, data)
        elif data.get("file"):
            row = feature_services.import_feature_set(
                actor=request.user,
                trial=trial,
                name=data["name"],
                content=read_table(data["file"]),
                metadata=_metadata(data.get("metadata")),
            )
        else:
            raise InvalidInput(
                "Send a CSV as “file”, a “matrix” with the labels of its rows as “file”, or “metrics” with"
                " “expected_key”."
            )
        return Response(FeatureSetSerializer(row).data, status=201)

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.BINARY})
    @action(detail=True, url_path="data", renderer_classes=[CsvRenderer, JSONRenderer])
    def data(self, request: Request, pk: Any = None) -> Answer:
        return feature_set_answer(request, self.get_object())


def _import_matrix(request: Request, trial: Trial, data: dict[str, Any]) -> FeatureSet:
    if not data.get("file"):
        raise InvalidInput(
            "A matrix needs the labels of its rows: send them as “file”, a CSV with subject and visit.",
            errors=[{"field": "file", "message": "is missing"}],
        )
    with matrix_file(data["matrix"]) as path:
        return matrix_services.import_matrix(
            actor=request.user,
            trial=trial,
            name=data["name"],
            labels=read_table(data["file"]),
            matrix=path,
            metadata=_metadata(data.get("metadata")),
        )


def _metadata(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InvalidInput("metadata is not JSON.") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidInput("metadata must be a JSON object.")
    return given


class AlgorithmViewSet(HubViewSet):
    """The harmonization methods of this installation."""

    queryset = AlgorithmVersion.objects.none()
    serializer_class = AlgorithmSerializer
    lookup_value_converter = "slug"
    filter_backends = ()

    @extend_schema(responses=AlgorithmSerializer(many=True))
    def list(self, request: Request) -> Response:
        rows = [_algorithm(name) for name in ALGORITHMS]
        return Response({"next": None, "previous": None, "results": rows})

    def retrieve(self, request: Request, pk: str = "") -> Response:
        if pk not in ALGORITHMS:
            raise NotFound(f"There is no algorithm {pk}. The hub has: {', '.join(ALGORITHMS)}.")
        return Response(_algorithm(pk))


def _algorithm(name: str) -> dict[str, Any]:
    algorithm = get_algorithm(name)
    description = describe(name)
    return {
        "id": name,
        "version": algorithm.version,
        "title": algorithm.title,
        "capabilities": description.capabilities,
        "parameters_schema": algorithm.parameters_schema(),
        "code_digest": source_digest(algorithm),
    }


class AlgorithmVersionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Versions of algorithms: verify (reproduce the reference results here), lock, retire."""

    queryset = AlgorithmVersion.objects.all()
    serializer_class = AlgorithmVersionSerializer
    filterset_fields = ["algorithm", "state", "version"]
    idempotent_actions = ("verify", "retire")
    ordering_fields = ["created_at", "algorithm"]

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        algorithm_services.register_algorithms()
        return super().list(request, *args, **kwargs)

    @extend_schema(request=None, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    def verify(self, request: Request, pk: Any = None) -> Response:
        job = algorithm_services.request_verification(actor=request.user, version=self.get_object())
        return Response(JobSerializer(job).data, status=202)

    @extend_schema(request=SignedSerializer, responses=AlgorithmVersionSerializer)
    @action(detail=True, methods=["post"])
    def lock(self, request: Request, pk: Any = None) -> Response:
        data = validated(SignedSerializer, request)
        row = algorithm_services.lock_algorithm(actor=request.user, version=self.get_object(), **data)
        return Response(AlgorithmVersionSerializer(row).data)

    @extend_schema(request=ReasonSerializer, responses=AlgorithmVersionSerializer)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: Any = None) -> Response:
        data = validated(ReasonSerializer, request)
        row = algorithm_services.retire_algorithm(actor=request.user, version=self.get_object(), **data)
        return Response(AlgorithmVersionSerializer(row).data)
