"""The dashboards' figures: trial summary, site scorecard, scanner timeline."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hub.core.api.permissions import LoggedIn
from qc_app.api.checks import VersionSerializer
from qc_app.api.common import get_trial, get_visible
from qc_app.selectors import dashboard
from sites_app.models import Scanner, Site

_Counts = serializers.DictField


class TrialSummarySerializer(serializers.Serializer):
    """Counts of what the user may see of a trial."""

    trial = serializers.UUIDField()
    code = serializers.CharField()
    lock_state = serializers.CharField()
    sites = serializers.IntegerField()
    subjects = serializers.IntegerField()
    visits = serializers.IntegerField()
    submissions = _Counts(child=serializers.IntegerField())
    series = _Counts(child=serializers.IntegerField())
    protocol_outcomes = _Counts(child=serializers.IntegerField())
    qc_outcomes = _Counts(child=serializers.IntegerField())
    open_deviations = _Counts(child=serializers.IntegerField())
    queries = _Counts(child=serializers.IntegerField())
    open_drift_alerts = serializers.IntegerField()
    open_change_events = serializers.IntegerField()
    protocol = VersionSerializer(allow_null=True)
    qc_profile = VersionSerializer(allow_null=True)


class ScorecardSerializer(serializers.Serializer):
    """How a site does; percentages and medians are null where there is nothing to take them of."""

    site = serializers.UUIDField(source="site_id")
    site_code = serializers.CharField()
    submissions = serializers.IntegerField()
    series_received = serializers.IntegerField()
    visits = serializers.IntegerField()
    first_pass = serializers.IntegerField()
    first_pass_percent = serializers.FloatField(allow_null=True)
    deviations = serializers.IntegerField()
    open_deviations = _Counts(child=serializers.IntegerField())
    open_queries = serializers.IntegerField()
    protocol_outcomes = _Counts(child=serializers.IntegerField())
    qc_outcomes = _Counts(child=serializers.IntegerField())
    check_turnaround_s = serializers.FloatField(allow_null=True)
    deviation_turnaround_h = serializers.FloatField(allow_null=True)


class TimelineEntrySerializer(serializers.Serializer):
    at = serializers.DateTimeField()
    kind = serializers.CharField(help_text="epoch, change_event or drift_alert")
    id = serializers.UUIDField()
    title = serializers.CharField()
    detail = serializers.CharField()
    state = serializers.CharField()


class TimelineSerializer(serializers.Serializer):
    scanner = serializers.UUIDField()
    entries = TimelineEntrySerializer(many=True)


class TrialSummaryView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(operation_id="trials_summary", responses=TrialSummarySerializer)
    def get(self, request: Request, pk: Any) -> Response:
        return Response(dashboard.trial_summary(request.user, get_trial(request.user, pk)))


class SiteScorecardView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(operation_id="sites_scorecard", responses=ScorecardSerializer)
    def get(self, request: Request, pk: Any) -> Response:
        site = get_visible(Site, request.user, pk)
        (card,) = dashboard.site_scorecards(request.user, site.trial, site=site)
        return Response(ScorecardSerializer(card).data)


class ScannerTimelineView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(operation_id="scanners_timeline", responses=TimelineSerializer)
    def get(self, request: Request, pk: Any) -> Response:
        scanner = get_visible(Scanner, request.user, pk)
        entries = [asdict(entry) for entry in dashboard.scanner_timeline(scanner)]
        return Response(TimelineSerializer({"scanner": scanner.pk, "entries": entries}).data)
