"""Candidate plans compared on the same data, by API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from harmonization_app.api.features import visible_or_refuse
from harmonization_app.api.serializers import RunSerializer
from harmonization_app.models import FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.permissions import readable
from harmonization_app.selectors.comparison import compare_runs, runs_to_compare
from harmonization_app.services.comparison import Candidate, start_comparison
from qc_app.api.common import validated


class ComparisonStartSerializer(serializers.Serializer):
    """Two to four candidates: stored `plans` (drafts or not), `specifications` (plan documents), or both."""

    feature_set = serializers.UUIDField()
    plans = serializers.ListField(child=serializers.UUIDField(), required=False, default=list)
    specifications = serializers.ListField(child=serializers.DictField(), required=False, default=list)


class ComparisonRunsSerializer(serializers.Serializer):
    """The exploratory runs that were started, in the order of the candidates."""

    runs = RunSerializer(many=True)


class ComparisonMeasureSerializer(serializers.Serializer):
    """One line of a comparison; `values` has one entry per run, null where a run has no such figure."""

    title = serializers.CharField()
    held_out = serializers.BooleanField(help_text="On scans that the method was not fitted on")
    values = serializers.ListField(child=serializers.FloatField(allow_null=True))
    note = serializers.CharField()


class ComparisonDifferenceSerializer(serializers.Serializer):
    """How far two results lie apart, in SD of the feature in the first; null where not computed (`reason`)."""

    first = serializers.UUIDField()
    second = serializers.UUIDField()
    rows = serializers.IntegerField()
    features = serializers.IntegerField()
    median_sd = serializers.FloatField(allow_null=True)
    high_sd = serializers.FloatField(allow_null=True, help_text="95th percentile")
    greatest_sd = serializers.FloatField(allow_null=True)
    reason = serializers.CharField()


class ComparisonSerializer(serializers.Serializer):
    """Runs side by side. Exploratory throughout: no figure in it belongs to a primary analysis."""

    exploratory = serializers.BooleanField(default=True)
    finished = serializers.BooleanField()
    runs = RunSerializer(many=True)
    measures = ComparisonMeasureSerializer(many=True)
    differences = ComparisonDifferenceSerializer(many=True)


class ComparisonMixin:
    """The route `compare/` of the plans: POST starts a comparison, GET reads one by the ids of its runs."""

    request: Any

    @extend_schema(request=ComparisonStartSerializer, responses={202: ComparisonRunsSerializer})
    @action(detail=False, methods=["post"], filterset_fields=[], pagination_class=None)
    def compare(self, request: Request) -> Response:
        """Start an exploratory run of each candidate on one feature set."""
        data = validated(ComparisonStartSerializer, request)
        user = request.user
        features = visible_or_refuse(FeatureSet, user, data["feature_set"], "feature_set")
        candidates = [
            Candidate(plan=visible_or_refuse(HarmonizationPlan, user, pk, "plans")) for pk in data["plans"]
        ]
        candidates += [Candidate(document=document) for document in data["specifications"]]
        runs = start_comparison(actor=user, feature_set=features, candidates=candidates)
        return Response({"runs": RunSerializer(runs, many=True).data}, status=202)

    @extend_schema(
        parameters=[
            OpenApiParameter("runs", str, required=True, description="Ids of two to four runs, by commas")
        ],
        responses=ComparisonSerializer,
    )
    @compare.mapping.get
    def comparison(self, request: Request) -> Response:
        """Return runs on the same data side by side."""
        visible = readable(HarmonizationRun, request.user)
        runs = runs_to_compare(visible, request.query_params.get("runs", "").split(","))
        found = compare_runs(runs)
        ids = {column.letter: str(column.run.pk) for column in found.columns}
        return Response(
            {
                "exploratory": True,
                "finished": found.is_final,
                "runs": RunSerializer(runs, many=True).data,
                "measures": [
                    {"title": row.title, "held_out": row.held_out, "values": row.cells, "note": row.note}
                    for row in found.measures
                ],
                "differences": [
                    {**asdict(row), "first": ids[row.first], "second": ids[row.second]}
                    for row in found.differences
                ],
            }
        )
