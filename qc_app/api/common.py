"""What the views of this app share: placed rows, filters by id, inputs of actions, CSV."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import django_filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer

from hub.core.errors import NotFound
from sites_app.models import Trial

PLACE = ["trial", "site", "site_code", "subject", "subject_code", "visit", "visit_code"]


class PlacedSerializer(serializers.ModelSerializer):
    """A row of a subject's visit, with the codes that people know."""

    subject_code = serializers.CharField(source="subject.code", read_only=True, allow_null=True)
    site_code = serializers.CharField(source="site.code", read_only=True)
    visit_code = serializers.CharField(source="visit.definition.code", read_only=True, allow_null=True)


class ScopedFilter(django_filters.FilterSet):
    """Filters by id. An id that the user may not see gives an empty list, as one that does not exist."""

    trial = django_filters.UUIDFilter(field_name="trial_id")
    site = django_filters.UUIDFilter(field_name="site_id")


class PlacedFilter(ScopedFilter):
    subject = django_filters.UUIDFilter(field_name="subject_id")
    visit = django_filters.UUIDFilter(field_name="visit_id")
    series = django_filters.UUIDFilter(field_name="series_id")


class ReasonInput(serializers.Serializer):
    reason = serializers.CharField(max_length=1000)


class OptionalReasonInput(serializers.Serializer):
    reason = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")


class CommentInput(serializers.Serializer):
    comment = serializers.CharField(max_length=1000)


class TextInput(serializers.Serializer):
    text = serializers.CharField(max_length=4000)


class SignatureInput(serializers.Serializer):
    """The password again, the one-time code where it is switched on, and what the signature means."""

    password = serializers.CharField(write_only=True, max_length=500, trim_whitespace=False)
    otp = serializers.CharField(write_only=True, required=False, allow_blank=True, default="", max_length=40)
    meaning = serializers.CharField(max_length=300)


class CsvRenderer(BaseRenderer):
    """Lets a client ask for text/csv; a refusal is still written as JSON."""

    media_type = "text/csv"
    format = "csv"
    charset = None

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        return JSONRenderer().render(data)


class PngRenderer(CsvRenderer):
    """The same for image/png."""

    media_type = "image/png"
    format = "png"


class HtmlRenderer(CsvRenderer):
    """The same for text/html."""

    media_type = "text/html"
    format = "html"


class PdfRenderer(CsvRenderer):
    """The same for application/pdf."""

    media_type = "application/pdf"
    format = "pdf"


csv_schema = extend_schema(
    responses={(200, "text/csv"): OpenApiResponse(OpenApiTypes.STR, description="All rows that match")}
)


def validated(serializer_class: type[serializers.Serializer], request: Any) -> dict[str, Any]:
    """Return the request's body checked by a serializer. Raises ValidationError."""
    serializer = serializer_class(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def get_visible(model: Any, user: Any, pk: UUID | str | None) -> Any:
    """Return the row of that id in the user's scope. Raises NotFound."""
    row = model.objects.visible_to(user).filter(pk=pk).first()
    if row is None:
        raise NotFound(f"There is no {model._meta.verbose_name} with this id that you may see.")
    return row


def get_trial(user: Any, pk: UUID | str | None) -> Trial:
    return get_visible(Trial, user, pk)  # type: ignore[no-any-return]
