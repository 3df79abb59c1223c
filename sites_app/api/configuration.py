"""Trials, sites, scanners, subjects, visits and memberships: read by all in scope, written by administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Q
from rest_framework import mixins, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from hub.core.api.views import HubViewSet
from hub.core.errors import InvalidInput, NotAllowed
from sites_app.models import (
    Arm,
    Membership,
    Role,
    Scanner,
    ScannerEpoch,
    Site,
    Subject,
    Trial,
    Visit,
    VisitDefinition,
)
from sites_app.permissions import ADMINISTRATORS, SITE_ROLES, UPLOADERS, sees_arm
from sites_app.services import people

SUBJECT_WRITERS = UPLOADERS


class TrialSerializer(serializers.ModelSerializer):
    class Meta:
        model = Trial
        fields = ["id", "code", "title", "lock_state", "created_at"]
        read_only_fields = ["id", "lock_state", "created_at"]


class ScopedSerializer(serializers.ModelSerializer):
    """A row of a trial: what it points to must be visible to the writer and belong to the same trial."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        request = self.context.get("request")
        for field in fields.values():
            related = getattr(field, "queryset", None)
            if related is not None and hasattr(related, "visible_to"):
                field.queryset = related.visible_to(request.user) if request else related.none()
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        trial = attrs.get("trial") or getattr(self.instance, "trial", None)
        if self.instance is not None and "trial" in attrs and attrs["trial"] != self.instance.trial:
            raise serializers.ValidationError({"trial": "A row stays in its trial."})
        if self.instance is not None and "site" in attrs and attrs["site"] != self.instance.site:
            raise serializers.ValidationError(
                {"site": "A row stays at its site: what was received there names it."}
            )
        for name, value in attrs.items():
            if trial is not None and getattr(value, "trial_id", trial.pk) != trial.pk:
                raise serializers.ValidationError({name: "It belongs to another trial."})
        return attrs


class ArmSerializer(ScopedSerializer):
    class Meta:
        model = Arm
        fields = ["id", "trial", "code", "title"]


class SiteSerializer(ScopedSerializer):
    class Meta:
        model = Site
        fields = ["id", "trial", "code", "name", "country", "is_active"]


class ScannerEpochSerializer(serializers.ModelSerializer):
    class Meta:
        model = ScannerEpoch
        fields = ["id", "number", "software_versions", "first_seen_on", "last_seen_on"]


class ScannerSerializer(ScopedSerializer):
    epochs = ScannerEpochSerializer(many=True, read_only=True)
    site_code = serializers.CharField(source="site.code", read_only=True)

    class Meta:
        model = Scanner
        fields = [
            "id",
            "trial",
            "site",
            "site_code",
            "manufacturer",
            "model",
            "serial_number",
            "modality",
            "field_strength_t",
            "is_declared",
            "epochs",
        ]
        read_only_fields = ["id", "is_declared"]


class VisitDefinitionSerializer(ScopedSerializer):
    class Meta:
        model = VisitDefinition
        fields = [
            "id",
            "trial",
            "code",
            "title",
            "position",
            "target_day",
            "window_before_days",
            "window_after_days",
        ]


class SubjectSerializer(ScopedSerializer):
    """`arm` is left out of the answer for roles that are blinded to it."""

    site_code = serializers.CharField(source="site.code", read_only=True)

    class Meta:
        model = Subject
        fields = ["id", "trial", "site", "site_code", "code", "arm", "created_at"]
        read_only_fields = ["id", "created_at"]

    def to_representation(self, instance: Subject) -> dict[str, Any]:
        shown = super().to_representation(instance)
        if not sees_arm(self.context["request"].user, instance.trial_id):
            shown.pop("arm")
        return shown

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        trial = attrs.get("trial") or getattr(self.instance, "trial", None)
        if "arm" in attrs and trial is not None and not sees_arm(self.context["request"].user, trial.pk):
            raise serializers.ValidationError({"arm": "Your role is blinded to treatment arms."})
        return attrs


class VisitSerializer(ScopedSerializer):
    subject_code = serializers.CharField(source="subject.code", read_only=True)
    visit_code = serializers.CharField(source="definition.code", read_only=True)

    class Meta:
        model = Visit
        fields = [
            "id",
            "trial",
            "site",
            "subject",
            "subject_code",
            "definition",
            "visit_code",
            "performed_on",
            "created_at",
        ]
        read_only_fields = ["id", "performed_on", "created_at", "site"]

    def create(self, validated_data: dict[str, Any]) -> Visit:
        return super().create({**validated_data, "site": validated_data["subject"].site})


class MembershipSerializer(ScopedSerializer):
    username = serializers.CharField(source="user.username", read_only=True)

    class Meta:
        model = Membership
        fields = ["id", "user", "username", "trial", "site", "role", "is_active", "created_at"]
        read_only_fields = ["id", "is_active", "created_at"]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        if attrs.get("role") == Role.SITE_COORDINATOR and attrs.get("site") is None:
            raise serializers.ValidationError({"site": "A site coordinator belongs to a site."})
        if attrs.get("site") is not None and attrs.get("role") not in SITE_ROLES:
            raise serializers.ValidationError(
                {"site": "This role is for the whole trial: leave the site out."}
            )
        return attrs


class ConfigurationViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    mixins.UpdateModelMixin,
    HubViewSet,
):
    """List, read, create and change one noun of a trial's configuration. Nothing is ever deleted."""

    model: Any = None
    related: tuple[str, ...] = ()
    writers = ADMINISTRATORS
    http_method_names = ["get", "post", "patch", "head", "options"]
    ordering_fields = ["id"]

    def get_queryset(self) -> Any:
        return self.model.objects.visible_to(self.request.user).select_related(*self.related)

    def perform_create(self, serializer: Any) -> None:
        given = serializer.validated_data
        self._save(serializer, given["trial"].pk, _site_of(given))

    def perform_update(self, serializer: Any) -> None:
        row = serializer.instance
        self._save(serializer, row.trial_id, getattr(row, "site_id", None))

    def _save(self, serializer: Any, trial_id: UUID, site_id: UUID | None) -> None:
        people.save_configuration(
            actor=self.request.user,
            serializer=serializer,
            trial_id=trial_id,
            site_id=site_id,
            noun=str(self.model._meta.verbose_name_plural),
            allowed=self.writers,
        )


def _site_of(given: Mapping[str, Any]) -> UUID | None:
    """Return the site of a row that is to be made: its own, or its subject's."""
    site = given.get("site") or getattr(given.get("subject"), "site", None)
    return site.pk if site is not None else None


class TrialViewSet(ConfigurationViewSet):
    queryset = Trial.objects.none()
    model = Trial
    serializer_class = TrialSerializer
    filterset_fields = ["code", "lock_state"]
    ordering_fields = ["code", "created_at"]

    def perform_create(self, serializer: Any) -> None:
        if not self.request.user.is_superuser:
            raise NotAllowed("Only the installation's administrator creates trials.")
        serializer.instance = people.create_trial(actor=self.request.user, values=serializer.validated_data)


class ArmViewSet(ConfigurationViewSet):
    queryset = Arm.objects.none()
    model = Arm
    serializer_class = ArmSerializer
    filterset_fields = ["trial", "code"]

    def get_queryset(self) -> Any:
        visible = super().get_queryset()
        trials = {arm.trial_id for arm in visible.only("trial_id")}
        return visible.filter(trial_id__in=[trial for trial in trials if sees_arm(self.request.user, trial)])


class SiteViewSet(ConfigurationViewSet):
    queryset = Site.objects.none()
    model = Site
    serializer_class = SiteSerializer
    filterset_fields = ["trial", "code", "is_active"]
    ordering_fields = ["code"]


class ScannerViewSet(ConfigurationViewSet):
    queryset = Scanner.objects.none()
    model = Scanner
    related = ("site",)
    serializer_class = ScannerSerializer
    filterset_fields = ["trial", "site", "manufacturer", "modality", "serial_number"]

    def get_queryset(self) -> Any:
        return super().get_queryset().prefetch_related("epochs")


class VisitDefinitionViewSet(ConfigurationViewSet):
    queryset = VisitDefinition.objects.none()
    model = VisitDefinition
    serializer_class = VisitDefinitionSerializer
    filterset_fields = ["trial", "code"]
    ordering_fields = ["position", "target_day"]


class SubjectViewSet(ConfigurationViewSet):
    queryset = Subject.objects.none()
    model = Subject
    related = ("site",)
    serializer_class = SubjectSerializer
    filterset_fields = ["trial", "site", "code"]
    ordering_fields = ["code", "created_at"]
    writers = SUBJECT_WRITERS


class VisitViewSet(ConfigurationViewSet):
    queryset = Visit.objects.none()
    model = Visit
    related = ("subject", "definition")
    serializer_class = VisitSerializer
    filterset_fields = ["trial", "site", "subject", "definition"]
    ordering_fields = ["performed_on", "created_at"]
    writers = SUBJECT_WRITERS
    http_method_names = ["get", "post", "head", "options"]


class MembershipViewSet(ConfigurationViewSet):
    queryset = Membership.objects.none()
    model = Membership
    related = ("user",)
    serializer_class = MembershipSerializer
    filterset_fields = ["trial", "site", "user", "role", "is_active"]

    def get_queryset(self) -> Any:
        """A sponsor does not know a site's staff: one who is nothing else sees only the own memberships."""
        mine = Membership.objects.filter(user=self.request.user, is_active=True)
        knowing = mine.exclude(role=Role.SPONSOR).values("trial_id")
        rows = super().get_queryset()
        if self.request.user.is_superuser:
            return rows
        return rows.filter(Q(trial_id__in=knowing) | Q(user=self.request.user))

    http_method_names = ["get", "post", "delete", "head", "options"]

    def perform_create(self, serializer: Any) -> None:
        data = serializer.validated_data
        if Membership.objects.filter(
            user=data["user"], trial=data["trial"], site=data.get("site"), role=data["role"]
        ).exists():
            raise InvalidInput("This membership exists already.")
        super().perform_create(serializer)

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """End the membership; its row stays as the record."""
        people.end_membership(actor=request.user, membership=self.get_object())
        return Response(status=204)
