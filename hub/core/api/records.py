"""Jobs, audit events and signatures, as far as the user's scope reaches."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db.models import Q
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hub.core.api.permissions import LoggedIn
from hub.core.api.views import HubViewSet
from hub.core.audit.models import AuditEvent
from hub.core.audit.services import record
from hub.core.audit.verification import verify
from hub.core.errors import NotAllowed
from hub.core.jobs import services as job_services
from hub.core.models import ElectronicSignature, Job
from hub.core.scopes import may_operate, reachable, reads_audit


class JobSerializer(serializers.ModelSerializer):
    class Meta:
        model = Job
        fields = [
            "id",
            "kind",
            "queue",
            "state",
            "progress",
            "progress_text",
            "attempts",
            "max_attempts",
            "reason",
            "cancel_requested",
            "created_at",
            "started_at",
            "heartbeat_at",
            "finished_at",
        ]


class JobViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """Work under way and done. `cancel/` stops it."""

    queryset = Job.objects.none()
    serializer_class = JobSerializer
    filterset_fields = ["kind", "queue", "state"]
    ordering_fields = ["created_at", "finished_at"]

    def get_queryset(self) -> Any:
        user = self.request.user
        if user.is_superuser:
            return Job.objects.all()
        # A job of the installation belongs to no trial: who asked for it may follow it.
        return Job.objects.filter(reachable(user) | Q(scope=None, requested_by=user.pk))

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any = None) -> Response:
        row = self.get_object()
        if not (row.requested_by == request.user.pk or may_operate(request.user, row.scope)):
            raise NotAllowed("Only who started this job or an administrator of the trial may cancel it.")
        job_services.cancel(row=row)
        record(actor=request.user, action="job.cancelled", obj=row, scope=row.scope)
        row.refresh_from_db()
        return Response(JobSerializer(row).data)


class AuditEventSerializer(serializers.ModelSerializer):
    payload = serializers.SerializerMethodField()

    class Meta:
        model = AuditEvent
        fields = [
            "id",
            "chain",
            "sequence",
            "recorded_at",
            "scope",
            "actor_id",
            "actor_name",
            "action",
            "object_type",
            "object_id",
            "payload",
            "items_root",
            "items_count",
            "previous_hash",
            "hash",
        ]

    @extend_schema_field(serializers.DictField())
    def get_payload(self, event: AuditEvent) -> dict[str, Any]:
        return json.loads(event.payload)


class AuditEventViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    """The audit trail, for auditors and administrators of the trial."""

    queryset = AuditEvent.objects.none()
    serializer_class = AuditEventSerializer
    lookup_value_converter = "int"
    filterset_fields = {
        "scope": ["exact"],
        "action": ["exact", "startswith"],
        "actor_name": ["exact"],
        "actor_id": ["exact"],
        "object_type": ["exact"],
        "object_id": ["exact"],
        "recorded_at": ["gte", "lte"],
    }
    ordering_fields = ["id", "recorded_at"]

    def get_queryset(self) -> Any:
        return AuditEvent.objects.filter(reads_audit(self.request.user))


class SignatureSerializer(serializers.ModelSerializer):
    class Meta:
        model = ElectronicSignature
        fields = [
            "id",
            "scope",
            "printed_name",
            "meaning",
            "signed_at",
            "object_type",
            "object_id",
            "object_digest",
            "second_factor",
        ]


class SignatureViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = ElectronicSignature.objects.none()
    serializer_class = SignatureSerializer
    filterset_fields = ["scope", "object_type", "object_id"]
    ordering_fields = ["signed_at"]

    def get_queryset(self) -> Any:
        return ElectronicSignature.objects.filter(reads_audit(self.request.user))


class BreakSerializer(serializers.Serializer):
    chain = serializers.CharField()
    sequence = serializers.IntegerField()
    problem = serializers.CharField()


class VerificationSerializer(serializers.Serializer):
    intact = serializers.BooleanField()
    events = serializers.IntegerField()
    chains = serializers.IntegerField()
    anchors = serializers.IntegerField()
    breaks = BreakSerializer(many=True)


class VerifyAuditView(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(responses=VerificationSerializer)
    def get(self, request: Request) -> Response:
        """Walk the whole chain now and compare it with the anchors."""
        if not AuditEvent.objects.filter(reads_audit(request.user)).exists():
            raise NotAllowed("The audit trail is verified by auditors and administrators.")
        result = verify(settings.HUB_ANCHOR_FILE)
        return Response({**asdict(result), "intact": result.intact})
