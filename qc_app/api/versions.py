"""Protocols and QC profiles: drafts, locking, amending, trying out; the shipped templates and the schemas."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hub.core.api.permissions import LoggedIn
from hub.core.api.views import HubViewSet
from hub.core.errors import InvalidInput
from qc_app.api.common import ReasonInput, SignatureInput, get_trial, get_visible, validated
from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.metrics.profile import QC_PROFILE_SCHEMA
from qc_app.models import Protocol, QCProfile
from qc_app.models.protocol import VersionState
from qc_app.protocol.schema import PROTOCOL_SCHEMA
from qc_app.protocol.template_files import template_names
from qc_app.services import protocol as protocols
from qc_app.services import qc_profile as profiles
from sites_app.models import Series

_FIELDS = [
    "id",
    "trial",
    "version",
    "title",
    "document",
    "digest",
    "state",
    "amendment_reason",
    "signature",
    "created_at",
    "updated_at",
    "locked_at",
]


class ProtocolSerializer(serializers.ModelSerializer):
    class Meta:
        model = Protocol
        fields = _FIELDS
        read_only_fields = fields


class QCProfileSerializer(serializers.ModelSerializer):
    class Meta:
        model = QCProfile
        fields = _FIELDS
        read_only_fields = fields


class ProtocolInput(serializers.Serializer):
    """A new draft: its document, or the name of a shipped template to begin with."""

    trial = serializers.UUIDField()
    title = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    document = serializers.JSONField(required=False)
    template = serializers.CharField(max_length=80, required=False)


class QCProfileInput(serializers.Serializer):
    """A new draft: its document, or (without one) the profile that the hub ships."""

    trial = serializers.UUIDField()
    title = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    document = serializers.JSONField(required=False)


class VersionChange(serializers.Serializer):
    title = serializers.CharField(max_length=300, required=False)
    document = serializers.JSONField(required=False)


class VersionReplacement(serializers.Serializer):
    title = serializers.CharField(max_length=300, required=False)
    document = serializers.JSONField()


class ImportInput(serializers.Serializer):
    """Add the series of a shipped template, or one drafted from a received series under a key and a title."""

    template = serializers.CharField(max_length=80, required=False)
    series = serializers.UUIDField(required=False)
    key = serializers.CharField(max_length=64, required=False)
    title = serializers.CharField(max_length=200, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("template" in attrs) == ("series" in attrs):
            raise serializers.ValidationError("Name either a template or a reference series.")
        if "series" in attrs and not attrs.get("key"):
            raise serializers.ValidationError({"key": "Name the expected series that is drafted."})
        return attrs


class JudgementChangeSerializer(serializers.Serializer):
    series = serializers.UUIDField()
    subject_code = serializers.CharField()
    visit_code = serializers.CharField()
    before = serializers.CharField()
    after = serializers.CharField()
    findings_before = serializers.ListField(child=serializers.CharField())
    findings_after = serializers.ListField(child=serializers.CharField())


class DryRunSerializer(serializers.Serializer):
    """What a version would say of all data so far: series by outcome before and after, and which would change."""

    series = serializers.IntegerField()
    before = serializers.DictField(child=serializers.IntegerField())
    after = serializers.DictField(child=serializers.IntegerField())
    changed = serializers.IntegerField()
    changes = JudgementChangeSerializer(many=True)


class VersionFilter(django_filters.FilterSet):
    trial = django_filters.UUIDFilter(field_name="trial_id")
    state = django_filters.ChoiceFilter(choices=VersionState.choices)


class _VersionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Read by all in the trial; drafted by data management, locked by the trial administrator."""

    filterset_class = VersionFilter
    idempotent_actions = ("create", "amend", "import_")
    ordering_fields = ["version", "created_at", "locked_at"]
    service: Any

    def partial_update(self, request: Request, pk: Any = None) -> Response:
        given = validated(VersionChange, request)
        if not given:
            raise InvalidInput("Send a document or a title to change.")
        row = self.service.update_draft(actor=request.user, row=self.get_object(), **given)
        return Response(self.get_serializer(row).data)

    def update(self, request: Request, pk: Any = None) -> Response:
        given = validated(VersionReplacement, request)
        row = self.service.update_draft(actor=request.user, row=self.get_object(), **given)
        return Response(self.get_serializer(row).data)

    def destroy(self, request: Request, pk: Any = None) -> Response:
        self.service.discard_draft(actor=request.user, row=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _answer(self, row: Any, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(row).data, status=code)


_VERSION_ACTIONS = {
    "partial_update": extend_schema(request=VersionChange),
    "update": extend_schema(request=VersionReplacement),
    "destroy": extend_schema(responses={204: None}),
}


@extend_schema_view(**_VERSION_ACTIONS)
class ProtocolViewSet(_VersionViewSet):
    queryset = Protocol.objects.none()
    serializer_class = ProtocolSerializer
    service = protocols

    def get_queryset(self) -> Any:
        return Protocol.objects.visible_to(self.request.user)

    @extend_schema(request=ProtocolInput, responses={201: ProtocolSerializer})
    def create(self, request: Request) -> Response:
        given = validated(ProtocolInput, request)
        if ("document" in given) == ("template" in given):
            raise InvalidInput("Send either a document or the name of a template.")
        document = given.get("document")
        if "template" in given:
            document = protocols.template_document(given["template"])
        trial = get_trial(request.user, given["trial"])
        row = protocols.create_draft(actor=request.user, trial=trial, document=document, title=given["title"])
        return self._answer(row, status.HTTP_201_CREATED)

    @extend_schema(request=SignatureInput, responses=ProtocolSerializer)
    @action(detail=True, methods=["post"])
    def lock(self, request: Request, pk: Any = None) -> Response:
        given = validated(SignatureInput, request)
        return self._answer(protocols.lock_protocol(actor=request.user, row=self.get_object(), **given))

    @extend_schema(request=ReasonInput, responses={201: ProtocolSerializer})
    @action(detail=True, methods=["post"])
    def amend(self, request: Request, pk: Any = None) -> Response:
        given = validated(ReasonInput, request)
        row = protocols.amend_protocol(actor=request.user, row=self.get_object(), **given)
        return self._answer(row, status.HTTP_201_CREATED)

    @extend_schema(request=None, responses=DryRunSerializer)
    @action(detail=True, methods=["get", "post"], url_path="dry-run")
    def dry_run(self, request: Request, pk: Any = None) -> Response:
        return Response(protocols.dry_run(actor=request.user, row=self.get_object()).as_json())

    @extend_schema(request=ImportInput, responses=ProtocolSerializer)
    @action(detail=True, methods=["post"], url_path="import")
    def import_(self, request: Request, pk: Any = None) -> Response:
        given = validated(ImportInput, request)
        row = self.get_object()
        if "template" in given:
            row = protocols.import_template(actor=request.user, row=row, name=given["template"])
        else:
            series = get_visible(Series, request.user, given["series"])
            if series.trial_id != row.trial_id:
                raise InvalidInput("The reference series belongs to another trial.")
            title = given.get("title") or given["key"]
            row = protocols.import_series(
                actor=request.user, row=row, series=series, key=given["key"], title=title
            )
        return self._answer(row)


@extend_schema_view(**_VERSION_ACTIONS)
class QCProfileViewSet(_VersionViewSet):
    queryset = QCProfile.objects.none()
    serializer_class = QCProfileSerializer
    service = profiles

    def get_queryset(self) -> Any:
        return QCProfile.objects.visible_to(self.request.user)

    @extend_schema(request=QCProfileInput, responses={201: QCProfileSerializer})
    def create(self, request: Request) -> Response:
        given = validated(QCProfileInput, request)
        trial = get_trial(request.user, given["trial"])
        row = profiles.create_draft(
            actor=request.user, trial=trial, document=given.get("document"), title=given["title"]
        )
        return self._answer(row, status.HTTP_201_CREATED)

    @extend_schema(request=SignatureInput, responses=QCProfileSerializer)
    @action(detail=True, methods=["post"])
    def lock(self, request: Request, pk: Any = None) -> Response:
        given = validated(SignatureInput, request)
        return self._answer(profiles.lock_profile(actor=request.user, row=self.get_object(), **given))

    @extend_schema(request=ReasonInput, responses={201: QCProfileSerializer})
    @action(detail=True, methods=["post"])
    def amend(self, request: Request, pk: Any = None) -> Response:
        given = validated(ReasonInput, request)
        row = profiles.amend_profile(actor=request.user, row=self.get_object(), **given)
        return self._answer(row, status.HTTP_201_CREATED)

    @extend_schema(request=None, responses=DryRunSerializer)
    @action(detail=True, methods=["get", "post"], url_path="dry-run")
    def dry_run(self, request: Request, pk: Any = None) -> Response:
        return Response(profiles.dry_run(actor=request.user, row=self.get_object()).as_json())


class TemplateSummary(serializers.Serializer):
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()


class TemplateListView(APIView):
    """The protocol templates that the hub ships."""

    permission_classes = (LoggedIn,)

    @extend_schema(operation_id="protocol_templates_list", responses=TemplateSummary(many=True))
    def get(self, request: Request) -> Response:
        documents = {name: protocols.template_document(name) for name in template_names()}
        return Response(
            {
                "next": None,
                "previous": None,
                "results": [
                    {"name": name, "title": item["title"], "description": item.get("description", "")}
                    for name, item in documents.items()
                ],
            }
        )


class TemplateDetailView(APIView):
    """One template: a protocol document."""

    permission_classes = (LoggedIn,)

    @extend_schema(
        operation_id="protocol_templates_retrieve",
        responses=OpenApiResponse({"type": "object", "additionalProperties": True}),
    )
    def get(self, request: Request, name: str) -> Response:
        return Response(protocols.template_document(name))


class _SchemaView(APIView):
    permission_classes = (LoggedIn,)
    document: Any

    @extend_schema(responses=OpenApiResponse({"type": "object", "additionalProperties": True}))
    def get(self, request: Request) -> Response:
        return Response(self.document)


class ProtocolSchemaView(_SchemaView):
    """The JSON Schema (2020-12) of a protocol document."""

    document = PROTOCOL_SCHEMA


class QCProfileSchemaView(_SchemaView):
    """The JSON Schema (2020-12) of a QC profile document."""

    document = QC_PROFILE_SCHEMA


class QCProfileDefaultView(_SchemaView):
    """The QC profile that the hub ships as a starting point."""

    document = DEFAULT_PROFILE
