"""Submissions: open, send files, complete, read what became of them."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from hub.core.api.pagination import KeysetPagination
from hub.core.api.views import HubViewSet
from hub.core.errors import InvalidInput
from sites_app.api.raw import RawBodyParser, request_body
from sites_app.ingest.manifest import parse_manifest
from sites_app.models import FileOutcome, Submission, SubmissionFile
from sites_app.selectors import submission as selectors
from sites_app.services import submission as services
from sites_app.services.addressing import resolve_visit
from sites_app.services.receipt import load_receipt
from sites_app.services.upload import ReceivedUpload, receive_upload

FILES_IN_DETAIL = 1000
_MOST_FORM_BYTES = 64 * 1024


class SubmissionSerializer(serializers.ModelSerializer):
    subject_code = serializers.CharField(source="subject.code", read_only=True)
    site_code = serializers.CharField(source="site.code", read_only=True)
    visit_code = serializers.CharField(source="visit.definition.code", read_only=True)
    is_final = serializers.BooleanField(read_only=True)

    class Meta:
        model = Submission
        fields = [
            "id",
            "trial",
            "site",
            "site_code",
            "subject",
            "subject_code",
            "visit",
            "visit_code",
            "channel",
            "state",
            "is_final",
            "reason",
            "counts",
            "created_by",
            "created_at",
            "completed_at",
            "finished_at",
        ]
        read_only_fields = fields


class SubmissionFileSerializer(serializers.ModelSerializer):
    """Documents what `file_lines` returns. `name` is null for who may not see original names."""

    name = serializers.CharField(allow_null=True)

    class Meta:
        model = SubmissionFile
        fields = [
            "id",
            "upload",
            "ordinal",
            "name",
            "sha256",
            "size",
            "outcome",
            "code",
            "detail",
            "action",
            "instance_id",
        ]
        read_only_fields = fields


class _SeriesLine(serializers.Serializer):
    id = serializers.UUIDField()
    modality = serializers.CharField()
    description = serializers.CharField()
    instance_count = serializers.IntegerField()
    state = serializers.CharField()


class SubmissionDetailSerializer(SubmissionSerializer):
    """A submission with its first files, its series and, when final, where its receipt is."""

    form = serializers.JSONField(read_only=True)
    counts = serializers.SerializerMethodField()
    pending_uploads = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    files_truncated = serializers.SerializerMethodField()
    series = serializers.SerializerMethodField()
    receipt = serializers.SerializerMethodField()

    class Meta(SubmissionSerializer.Meta):
        fields = [
            *SubmissionSerializer.Meta.fields,
            "form",
            "pending_uploads",
            "files",
            "files_truncated",
            "series",
            "receipt",
        ]
        read_only_fields = fields

    def get_counts(self, submission: Submission) -> dict[str, int]:
        return submission.counts or selectors.file_counts(submission)

    def get_pending_uploads(self, submission: Submission) -> int:
        return selectors.pending_uploads(submission)

    @extend_schema_field(SubmissionFileSerializer(many=True))
    def get_files(self, submission: Submission) -> Any:
        files = selectors.files_of(submission)[:FILES_IN_DETAIL]
        return selectors.file_lines(files, self.context["request"].user)

    def get_files_truncated(self, submission: Submission) -> bool:
        return selectors.files_of(submission)[FILES_IN_DETAIL : FILES_IN_DETAIL + 1].exists()

    @extend_schema_field(_SeriesLine(many=True))
    def get_series(self, submission: Submission) -> Any:
        return _SeriesLine(selectors.series_of(submission), many=True).data

    def get_receipt(self, submission: Submission) -> str | None:
        return f"/api/v1/submissions/{submission.pk}/receipt/" if submission.receipt_digest else None


class SubmissionRequestSerializer(serializers.Serializer):
    """Each of trial, site, subject and visit is an id or a code."""

    trial = serializers.CharField(max_length=100)
    site = serializers.CharField(max_length=100)
    subject = serializers.CharField(max_length=100)
    visit = serializers.CharField(max_length=100)
    channel = serializers.SlugField(max_length=40, default="rest")
    form = serializers.DictField(default=dict)
    manifest = serializers.ListField(child=serializers.DictField(), default=list)

    def validate_form(self, form: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(form)) > _MOST_FORM_BYTES:
            raise serializers.ValidationError(f"The form has more than {_MOST_FORM_BYTES:,} bytes.")
        return form


class _ReceivedFile(serializers.Serializer):
    name = serializers.CharField()
    sha256 = serializers.CharField()
    size = serializers.IntegerField()
    outcome = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ReceivedUploadSerializer(serializers.Serializer):
    """What one request brought; the outcome of each file is read from the submission once it is processed."""

    upload = serializers.UUIDField()
    files = _ReceivedFile(many=True)


class FilesPagination(KeysetPagination):
    ordering = ("id",)
    page_size = 200


class SubmissionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, HubViewSet):
    queryset = Submission.objects.none()
    serializer_class = SubmissionSerializer
    filterset_fields = ["trial", "site", "subject", "visit", "state", "channel"]
    idempotent_actions = ("create", "complete", "cancel")
    ordering_fields = ["created_at", "completed_at", "finished_at"]

    def get_queryset(self) -> Any:
        return selectors.visible_submissions(self.request.user)

    def get_serializer_class(self) -> Any:
        return SubmissionDetailSerializer if self.detail else SubmissionSerializer

    @extend_schema(responses=SubmissionDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=SubmissionRequestSerializer, responses={201: SubmissionSerializer})
    def create(self, request: Request) -> Response:
        """Open a submission for a subject's visit."""
        if not isinstance(request.data, dict):
            raise InvalidInput("Send a JSON object with trial, site, subject and visit.")
        serializer = SubmissionRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        found = serializer.validated_data
        manifest = parse_manifest(found["manifest"])
        parts = {name: found[name] for name in ("trial", "site", "subject", "visit")}
        visit = resolve_visit(actor=request.user, **parts)
        submission = services.create_submission(
            actor=request.user,
            request=services.SubmissionRequest(visit, found["channel"], found["form"], tuple(manifest)),
        )
        return self._state(submission, 201)

    @extend_schema(responses=SubmissionFileSerializer(many=True))
    @action(
        detail=True,
        methods=["get"],
        parser_classes=[RawBodyParser],
        pagination_class=FilesPagination,
        filter_backends=[],
    )
    def files(self, request: Request, pk: Any = None) -> Response:
        """List what became of each file; `?outcome=` keeps one outcome."""
        submission = self.get_object()
        files = selectors.files_of(submission)
        outcome = request.query_params.get("outcome")
        if outcome is not None:
            if outcome not in FileOutcome.values:
                raise InvalidInput(
                    f"There is no outcome {outcome[:40]}. Use one of: {', '.join(FileOutcome.values)}."
                )
            files = files.filter(outcome=outcome)
        page = self.paginate_queryset(files.order_by("id"))
        return self.get_paginated_response(selectors.file_lines(page, request.user))

    @extend_schema(
        request={
            "application/dicom": OpenApiTypes.BINARY,
            "application/zip": OpenApiTypes.BINARY,
            "multipart/form-data": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            },
        },
        responses={202: ReceivedUploadSerializer, 200: ReceivedUploadSerializer},
    )
    @files.mapping.post
    def send_files(self, request: Request, pk: Any = None) -> Response:
        """Receive one DICOM file, one zip archive, or a form with many files; 200 where it was here before."""
        received = receive_upload(
            actor=request.user, submission=self.get_object(), body=request_body(request)
        )
        return Response(_answer(received), status=200 if received.repeated else 202)

    @extend_schema(request=None, responses={202: SubmissionSerializer})
    @action(detail=True, methods=["post"])
    def complete(self, request: Request, pk: Any = None) -> Response:
        """Say that everything is sent."""
        submission = services.complete_submission(actor=request.user, submission=self.get_object())
        return self._state(submission, 202)

    @extend_schema(request=None, responses=SubmissionSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any = None) -> Response:
        """Drop an open submission and what it brought."""
        submission = services.cancel_submission(actor=request.user, submission=self.get_object())
        return self._state(submission, 200)

    @extend_schema(responses={200: OpenApiResponse(OpenApiTypes.OBJECT, "The signed receipt")})
    @action(detail=True, methods=["get"])
    def receipt(self, request: Request, pk: Any = None) -> HttpResponse:
        """Return the signed receipt of a finished submission."""
        return HttpResponse(load_receipt(self.get_object()), content_type="application/json")

    def _state(self, submission: Submission, status: int) -> Response:
        serializer = SubmissionSerializer(submission, context=self.get_serializer_context())
        return Response(serializer.data, status=status)


def _answer(received: ReceivedUpload) -> dict[str, Any]:
    outcome, code, detail = "received", "", "Stored; it is being processed."
    if received.repeated:
        outcome, code = "duplicate", "upload_repeated"
        detail = "The same content was sent to this submission before; it is kept once."
    return {
        "upload": str(received.upload.pk),
        "files": [
            {
                "name": file.name,
                "sha256": file.sha256,
                "size": file.size,
                "outcome": outcome,
                "code": code,
                "detail": detail,
            }
            for file in received.files
        ],
    }
