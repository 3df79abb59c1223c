"""Deviations and queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from hub.core.api.views import HubViewSet
from hub.core.csv_export import csv_response
from hub.core.errors import InvalidInput
from qc_app.api.common import (
    PLACE,
    CsvRenderer,
    OptionalReasonInput,
    PlacedFilter,
    PlacedSerializer,
    ReasonInput,
    SignatureInput,
    TextInput,
    csv_schema,
    get_visible,
    validated,
)
from qc_app.models import Deviation, DeviationState, Query, QueryMessage, QueryState, Severity
from qc_app.permissions import sees_staff_names
from qc_app.services import deviation as deviations
from qc_app.services import query as queries
from qc_app.services.waivers import SCOPES
from sites_app.models import Series, Site, Visit

_CSV = [
    "id", "site_code", "subject_code", "visit_code", "expected_key", "rule", "parameter", "label", "kind",
    "severity", "important", "expected", "observed", "unit", "state", "reason", "opened_at", "closed_at",
    "protocol_digest",
]  # fmt: skip


class DeviationSerializer(PlacedSerializer):
    expected = serializers.JSONField(source="verdict.expected", read_only=True)
    observed = serializers.JSONField(source="verdict.observed", read_only=True, allow_null=True)
    unit = serializers.CharField(source="verdict.unit", read_only=True)
    source = serializers.CharField(source="verdict.source", read_only=True)
    queries = serializers.PrimaryKeyRelatedField(many=True, read_only=True)

    class Meta:
        model = Deviation
        fields = [
            "id", *PLACE, "series", "scanner", "protocol", "protocol_digest", "expected_key", "rule", "parameter",
            "label", "kind", "severity", "important", "expected", "observed", "unit", "source", "detail", "action",
            "state", "reason", "resolved_by_series", "waiver", "signature", "queries", "opened_at", "closed_at",
        ]  # fmt: skip
        read_only_fields = fields


class DeviationFilter(PlacedFilter):
    state = django_filters.MultipleChoiceFilter(choices=DeviationState.choices)
    severity = django_filters.MultipleChoiceFilter(choices=Severity.choices)
    parameter = django_filters.CharFilter()
    rule = django_filters.CharFilter()
    kind = django_filters.CharFilter()
    important = django_filters.BooleanFilter()
    scanner = django_filters.UUIDFilter(field_name="scanner_id")


class WaiverInput(SignatureInput):
    reason = serializers.CharField(max_length=1000)
    scope = serializers.ChoiceField(choices=list(SCOPES), default="series")
    expires_on = serializers.DateField(required=False, allow_null=True, default=None)


class DeviationViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = Deviation.objects.none()
    serializer_class = DeviationSerializer
    filterset_class = DeviationFilter
    idempotent_actions = ("acknowledge", "resolve", "reject")
    ordering_fields = ["opened_at", "closed_at", "severity", "state", "parameter"]

    def get_queryset(self) -> Any:
        rows = Deviation.objects.visible_to(self.request.user)
        return rows.select_related("site", "subject", "visit__definition").prefetch_related("queries")

    def _answer(self, row: Deviation) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=row.pk)).data)

    @extend_schema(request=OptionalReasonInput, responses=DeviationSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: Any = None) -> Response:
        given = validated(OptionalReasonInput, request)
        return self._answer(deviations.acknowledge(actor=request.user, deviation=self.get_object(), **given))

    @extend_schema(request=WaiverInput, responses=DeviationSerializer)
    @action(detail=True, methods=["post"])
    def waive(self, request: Request, pk: Any = None) -> Response:
        given = validated(WaiverInput, request)
        return self._answer(deviations.waive(actor=request.user, deviation=self.get_object(), **given))

    @extend_schema(request=ReasonInput, responses=DeviationSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: Any = None) -> Response:
        given = validated(ReasonInput, request)
        return self._answer(deviations.resolve(actor=request.user, deviation=self.get_object(), **given))

    @extend_schema(request=ReasonInput, responses=DeviationSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: Any = None) -> Response:
        given = validated(ReasonInput, request)
        return self._answer(deviations.reject(actor=request.user, deviation=self.get_object(), **given))

    @csv_schema
    @action(detail=False, methods=["get"], pagination_class=None, renderer_classes=[CsvRenderer])
    def export(self, request: Request) -> Any:
        rows = self.filter_queryset(self.get_queryset().prefetch_related(None))
        return csv_response("deviations", _CSV, _csv_rows(rows))


def _csv_rows(rows: Any) -> Iterator[list[Any]]:
    for row in rows.iterator(chunk_size=500):
        verdict = row.verdict
        shown = {
            "site_code": row.site.code,
            "subject_code": row.subject.code,
            "visit_code": row.visit.definition.code,
            "expected": verdict["expected"].get("text", ""),
            "observed": verdict["observed"],
            "unit": verdict["unit"],
            "opened_at": row.opened_at.isoformat(),
            "closed_at": row.closed_at.isoformat() if row.closed_at else "",
        }
        yield [shown[name] if name in shown else getattr(row, name) for name in _CSV]


class QueryMessageSerializer(serializers.ModelSerializer):
    """`author` is left out for roles that may not know a site's staff."""

    author = serializers.SerializerMethodField()

    class Meta:
        model = QueryMessage
        fields = ["id", "author", "text", "created_at"]
        read_only_fields = fields

    def get_author(self, row: QueryMessage) -> str:
        request = self.context["request"]
        known: dict[Any, bool] = request.__dict__.setdefault("_sees_staff", {})
        if row.trial_id not in known:
            known[row.trial_id] = sees_staff_names(request.user, row.trial_id)
        return str(row.author) if known[row.trial_id] else ""


class QuerySerializer(PlacedSerializer):
    messages = QueryMessageSerializer(many=True, read_only=True)
    is_system = serializers.SerializerMethodField()

    class Meta:
        model = Query
        fields = [
            "id", *PLACE, "series", "deviation", "title", "text", "is_rescan_request", "is_system", "state",
            "closing_reason", "messages", "created_at", "closed_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_is_system(self, row: Query) -> bool:
        return row.raised_by_id is None


class QueryInput(serializers.Serializer):
    """A question about a deviation, a series, a visit or a site; the most exact one given counts.

    With `is_rescan_request` and a series, title and values to set are written by the hub.
    """

    deviation = serializers.UUIDField(required=False)
    series = serializers.UUIDField(required=False)
    visit = serializers.UUIDField(required=False)
    site = serializers.UUIDField(required=False)
    title = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    text = serializers.CharField(max_length=4000, required=False, allow_blank=True, default="")
    is_rescan_request = serializers.BooleanField(default=False)


class QueryFilter(PlacedFilter):
    state = django_filters.MultipleChoiceFilter(choices=QueryState.choices)
    deviation = django_filters.UUIDFilter(field_name="deviation_id")
    is_rescan_request = django_filters.BooleanFilter()


class QueryViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = Query.objects.none()
    serializer_class = QuerySerializer
    filterset_class = QueryFilter
    idempotent_actions = ("create", "answer", "reopen", "close")
    ordering_fields = ["created_at", "closed_at", "state"]

    def get_queryset(self) -> Any:
        rows = Query.objects.visible_to(self.request.user)
        return rows.select_related("site", "subject", "visit__definition").prefetch_related(
            "messages__author"
        )

    def _answer(self, row: Query, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=row.pk)).data, status=code)

    @extend_schema(request=QueryInput, responses={201: QuerySerializer})
    def create(self, request: Request) -> Response:
        given = validated(QueryInput, request)
        about = _about(request.user, given)
        if given["is_rescan_request"]:
            if about.series is None:
                raise InvalidInput("Name the series to acquire again, or a deviation of it.")
            row = queries.request_rescan(actor=request.user, series=about.series, comment=given["text"])
        else:
            row = queries.raise_query(
                actor=request.user, about=about, title=given["title"], text=given["text"]
            )
        return self._answer(row, status.HTTP_201_CREATED)

    @extend_schema(request=TextInput, responses=QuerySerializer)
    @action(detail=True, methods=["post"])
    def answer(self, request: Request, pk: Any = None) -> Response:
        given = validated(TextInput, request)
        return self._answer(queries.answer_query(actor=request.user, query=self.get_object(), **given))

    @extend_schema(request=TextInput, responses=QuerySerializer)
    @action(detail=True, methods=["post"])
    def reopen(self, request: Request, pk: Any = None) -> Response:
        given = validated(TextInput, request)
        return self._answer(queries.reopen_query(actor=request.user, query=self.get_object(), **given))

    @extend_schema(request=ReasonInput, responses=QuerySerializer)
    @action(detail=True, methods=["post"])
    def close(self, request: Request, pk: Any = None) -> Response:
        given = validated(ReasonInput, request)
        return self._answer(queries.close_query(actor=request.user, query=self.get_object(), **given))


def _about(user: Any, given: dict[str, Any]) -> queries.About:
    if "deviation" in given:
        return queries.About.deviation_(get_visible(Deviation, user, given["deviation"]))
    if "series" in given:
        return queries.About.series_(get_visible(Series, user, given["series"]))
    if "visit" in given:
        visit = get_visible(Visit, user, given["visit"])
        return queries.About(visit.site, visit.subject, visit)
    if "site" in given:
        return queries.About(get_visible(Site, user, given["site"]))
    raise InvalidInput("Name what the question is about: a deviation, a series, a visit or a site.")
