"""Studies, series and instances: what was received."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from hub.core.api.views import HubViewSet
from sites_app.api.raw import ZipRenderer, streamed
from sites_app.models import Instance, Series, SeriesState, Study
from sites_app.selectors import series as selectors
from sites_app.services.series_archive import open_series_archive


class _PlacedSerializer(serializers.ModelSerializer):
    """A row of a subject's visit, with the codes that people know."""

    subject_code = serializers.CharField(source="subject.code", read_only=True)
    site_code = serializers.CharField(source="site.code", read_only=True)
    visit_code = serializers.CharField(source="visit.definition.code", read_only=True)


_PLACE = ["trial", "site", "site_code", "subject", "subject_code", "visit", "visit_code"]


class StudySerializer(_PlacedSerializer):
    series = serializers.PrimaryKeyRelatedField(many=True, read_only=True)

    class Meta:
        model = Study
        fields = [
            "id",
            *_PLACE,
            "study_instance_uid",
            "study_date",
            "description",
            "series",
            "created_at",
        ]
        read_only_fields = fields


class SeriesSerializer(_PlacedSerializer):
    study_instance_uid = serializers.CharField(source="study.study_instance_uid", read_only=True)

    class Meta:
        model = Series
        fields = [
            "id",
            *_PLACE,
            "study",
            "study_instance_uid",
            "submission",
            "scanner",
            "scanner_epoch",
            "series_instance_uid",
            "modality",
            "description",
            "acquired_on",
            "instance_count",
            "size",
            "state",
            "reason",
            "received_at",
            "checked_at",
        ]
        read_only_fields = fields


class InstanceSerializer(serializers.ModelSerializer):
    class Meta:
        model = Instance
        fields = [
            "id",
            "trial",
            "site",
            "series",
            "sop_instance_uid",
            "sop_class_uid",
            "transfer_syntax_uid",
            "instance_number",
            "frames",
            "size",
            "sha256",
            "original_sha256",
        ]
        read_only_fields = fields


class _ObservedValue(serializers.Serializer):
    value = serializers.JSONField()
    count = serializers.IntegerField()
    instances = serializers.ListField(child=serializers.CharField())


class ParameterSerializer(serializers.Serializer):
    """One acquisition parameter: its distinct values, most frequent first, and how many instances lack it."""

    keyword = serializers.CharField()
    unit = serializers.CharField()
    source = serializers.CharField()
    values = _ObservedValue(many=True)
    missing = serializers.IntegerField()
    unparsable = serializers.IntegerField()


class SeriesFilter(django_filters.FilterSet):
    submission = django_filters.UUIDFilter(method="of_submission", label="Received with this submission")
    state = django_filters.ChoiceFilter(choices=SeriesState.choices)

    class Meta:
        model = Series
        fields = ["trial", "site", "subject", "visit", "study", "scanner", "modality", "series_instance_uid"]

    def of_submission(self, queryset: Any, name: str, value: Any) -> Any:
        return queryset.filter(segments__upload__submission_id=value).distinct()


class StudyViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = Study.objects.none()
    serializer_class = StudySerializer
    filterset_fields = ["trial", "site", "subject", "visit", "study_instance_uid"]
    ordering_fields = ["created_at", "study_date"]

    def get_queryset(self) -> Any:
        return selectors.received_studies(self.request.user)


class SeriesViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = Series.objects.none()
    serializer_class = SeriesSerializer
    filterset_class = SeriesFilter
    ordering_fields = ["received_at", "acquired_on", "instance_count"]

    def get_queryset(self) -> Any:
        return selectors.received_series(self.request.user)

    @extend_schema(responses=ParameterSerializer(many=True))
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def parameters(self, request: Request, pk: Any = None) -> Response:
        """Return each acquisition parameter: value, unit, and the tag it was read from."""
        return Response(selectors.parameters_of(self.get_object()))

    @extend_schema(responses={(200, "application/zip"): OpenApiResponse(OpenApiTypes.BINARY)})
    @action(detail=True, methods=["get"], renderer_classes=[JSONRenderer, ZipRenderer], filter_backends=[])
    def archive(self, request: Request, pk: Any = None) -> Any:
        """Return the de-identified instances as a zip archive."""
        series = self.get_object()
        return streamed(request, open_series_archive(actor=request.user, series=series), f"{series.pk}.zip")


class InstanceViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = Instance.objects.none()
    serializer_class = InstanceSerializer
    filterset_fields = ["trial", "site", "series", "sop_instance_uid"]
    ordering_fields = ["instance_number"]

    def get_queryset(self) -> Any:
        return selectors.received_instances(self.request.user)
