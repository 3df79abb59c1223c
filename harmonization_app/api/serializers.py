"""What the API shows of features, algorithms, plans, runs and the data lock."""

from __future__ import annotations

from rest_framework import serializers

from harmonization_app.models import (
    AlgorithmVersion,
    DataLock,
    FeatureSet,
    HarmonizationPlan,
    HarmonizationRun,
)
from hub.core.models import Job
from qc_app.api.common import ReasonInput, SignatureInput


class SignedSerializer(SignatureInput):
    """What signing needs: the password again, and the meaning in words."""


class ReasonSerializer(ReasonInput):
    """Why it is done."""


class FeatureSetSerializer(serializers.ModelSerializer):
    class Meta:
        model = FeatureSet
        fields = [
            "id",
            "trial",
            "name",
            "origin",
            "provenance",
            "columns",
            "covariates",
            "row_count",
            "column_count",
            "missing_count",
            "data_digest",
            "digest",
            "created_at",
        ]


class FeatureSetImportSerializer(serializers.Serializer):
    """A CSV `file` with `metadata`; or a `matrix` (NPY) with the labels of its rows as `file`; or `metrics` of
    an `expected_key` to build from QC.
    """

    trial = serializers.UUIDField()
    name = serializers.CharField(max_length=200)
    file = serializers.FileField(required=False)
    matrix = serializers.FileField(required=False)
    metadata = serializers.JSONField(required=False)
    metrics = serializers.ListField(child=serializers.CharField(max_length=60), required=False)
    expected_key = serializers.CharField(max_length=80, required=False)


class AlgorithmSerializer(serializers.Serializer):
    id = serializers.CharField()
    version = serializers.CharField()
    title = serializers.CharField()
    capabilities = serializers.DictField()
    parameters_schema = serializers.DictField()
    code_digest = serializers.CharField()


class AlgorithmVersionSerializer(serializers.ModelSerializer):
    class Meta:
        model = AlgorithmVersion
        fields = [
            "id",
            "algorithm",
            "version",
            "title",
            "state",
            "code_digest",
            "environment",
            "environment_digest",
            "parameters_schema",
            "verification",
            "signature",
            "second_signature",
            "signatures_required",
            "created_at",
            "verified_at",
            "locked_at",
        ]


class PlanSerializer(serializers.ModelSerializer):
    class Meta:
        model = HarmonizationPlan
        fields = [
            "id",
            "trial",
            "name",
            "version",
            "title",
            "algorithm_version",
            "companions",
            "document",
            "digest",
            "state",
            "amendment_reason",
            "signature",
            "created_at",
            "updated_at",
            "locked_at",
        ]


class PlanWriteSerializer(serializers.Serializer):
    trial = serializers.UUIDField()
    document = serializers.DictField()


class PlanChangeSerializer(serializers.Serializer):
    document = serializers.DictField()


class PlanCheckSerializer(serializers.Serializer):
    feature_set = serializers.UUIDField()


class FindingSerializer(serializers.Serializer):
    code = serializers.CharField()
    severity = serializers.ChoiceField(choices=["stop", "warn", "info"])
    message = serializers.CharField()
    rows = serializers.ListField(child=serializers.CharField())
    columns = serializers.ListField(child=serializers.CharField())
    batches = serializers.ListField(child=serializers.CharField())
    step = serializers.CharField(required=False, help_text="part of a chain that saw it: calibration or main")


class GateSerializer(serializers.Serializer):
    passes = serializers.BooleanField()
    findings = FindingSerializer(many=True)


class RunSerializer(serializers.ModelSerializer):
    progress = serializers.SerializerMethodField()
    diagnostics = serializers.SerializerMethodField()
    algorithm = serializers.CharField(source="algorithm_version.algorithm", read_only=True)

    class Meta:
        model = HarmonizationRun
        fields = [
            "id",
            "trial",
            "plan",
            "plan_digest",
            "algorithm",
            "algorithm_version",
            "feature_set",
            "specification",
            "kind",
            "exploratory_reason",
            "state",
            "reason",
            "progress",
            "rerun_of",
            "mode",
            "model_of",
            "added_batch",
            "step_reason",
            "estimate",
            "row_decisions",
            "gate",
            "summary",
            "diagnostics",
            "environment",
            "input_digest",
            "data_digest",
            "model_digest",
            "diagnostics_digest",
            "created_at",
            "started_at",
            "finished_at",
        ]

    def get_progress(self, run: HarmonizationRun) -> float:
        if run.is_final:
            return 1.0
        job = Job.objects.filter(pk=run.job_id).only("progress").first()
        return job.progress if job else 0.0

    def get_diagnostics(self, run: HarmonizationRun) -> dict | None:
        if not self.context.get("with_diagnostics"):
            return None
        from harmonization_app.services.run import load_diagnostics

        return load_diagnostics(run) or None


class RunStartSerializer(serializers.Serializer):
    """Either a plan, or an inline specification (a plan's document); the latter is always exploratory."""

    feature_set = serializers.UUIDField()
    plan = serializers.UUIDField(required=False)
    specification = serializers.DictField(required=False)


class ChecklistItemSerializer(serializers.Serializer):
    code = serializers.CharField()
    title = serializers.CharField()
    met = serializers.BooleanField()
    blocking = serializers.BooleanField()
    count = serializers.IntegerField()
    detail = serializers.CharField()


class DataLockSerializer(serializers.ModelSerializer):
    class Meta:
        model = DataLock
        fields = [
            "id",
            "trial",
            "state",
            "checklist",
            "manifest_digest",
            "signature",
            "created_at",
            "frozen_at",
            "locked_at",
        ]


class DataLockOpenSerializer(serializers.Serializer):
    trial = serializers.UUIDField()
