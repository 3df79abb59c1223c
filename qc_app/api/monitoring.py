"""What is noticed over time: scanner changes and drift."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from hub.core.api.views import HubViewSet
from qc_app.api.common import CommentInput, ScopedFilter, validated
from qc_app.models import ChangeEvent, DriftAlert
from qc_app.services import drift


class ChangeEventSerializer(serializers.ModelSerializer):
    site_code = serializers.CharField(source="site.code", read_only=True)
    serial_number = serializers.CharField(source="scanner.serial_number", read_only=True)

    class Meta:
        model = ChangeEvent
        fields = [
            "id", "trial", "site", "site_code", "scanner",
            "serial_number", "epoch", "kind", "old", "new", "first_series",
            "occurred_on", "state", "comment", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class DriftAlertSerializer(serializers.ModelSerializer):
    site_code = serializers.CharField(source="site.code", read_only=True)
    serial_number = serializers.CharField(source="scanner.serial_number", read_only=True)

    class Meta:
        model = DriftAlert
        fields = [
            "id", "trial", "site", "site_code", "scanner", "serial_number", "expected_key", "metric", "chart",
            "direction",
            "signalled_by", "detail", "evidence", "state", "comment", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class MonitoringFilter(ScopedFilter):
    scanner = django_filters.UUIDFilter(field_name="scanner_id")
    state = django_filters.ChoiceFilter(choices=DriftAlert.State.choices)


class DriftAlertFilter(MonitoringFilter):
    metric = django_filters.CharFilter()
    expected_key = django_filters.CharFilter()


class _MonitoringViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    ordering_fields = ["created_at", "state"]
    idempotent_actions = ("review",)

    def _review(self, request: Request) -> Response:
        given = validated(CommentInput, request)
        row = drift.review(actor=request.user, row=self.get_object(), **given)
        return Response(self.get_serializer(row).data)


class ChangeEventViewSet(_MonitoringViewSet):
    queryset = ChangeEvent.objects.none()
    serializer_class = ChangeEventSerializer
    filterset_class = MonitoringFilter

    def get_queryset(self) -> Any:
        return ChangeEvent.objects.visible_to(self.request.user).select_related("site", "scanner")

    @extend_schema(request=CommentInput, responses=ChangeEventSerializer)
    @action(detail=True, methods=["post"])
    def review(self, request: Request, pk: Any = None) -> Response:
        return self._review(request)


class DriftAlertViewSet(_MonitoringViewSet):
    queryset = DriftAlert.objects.none()
    serializer_class = DriftAlertSerializer
    filterset_class = DriftAlertFilter

    def get_queryset(self) -> Any:
        return DriftAlert.objects.visible_to(self.request.user).select_related("site", "scanner")

    @extend_schema(request=CommentInput, responses=DriftAlertSerializer)
    @action(detail=True, methods=["post"])
    def review(self, request: Request, pk: Any = None) -> Response:
        return self._review(request)
