"""Filters that refuse what they do not know: a misspelt filter must not return everything."""

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.filters import OrderingFilter

from hub.core.errors import InvalidInput

_RESERVED = {"limit", "cursor", "ordering", "format"}


class StrictFilterBackend(DjangoFilterBackend):
    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        filterset_class = self.get_filterset_class(view, queryset)
        known = set(filterset_class.base_filters) if filterset_class else set()
        unknown = set(request.query_params) - known - _RESERVED - set(getattr(view, "extra_query", ()))
        if unknown and getattr(view, "action", None) == "list":
            names = ", ".join(sorted(unknown))
            raise InvalidInput(
                f"There is no filter {names} here. Use one of: {', '.join(sorted(known | _RESERVED))}."
            )
        return super().filter_queryset(request, queryset, view)


class StableOrderingFilter(OrderingFilter):
    """`?ordering=`; an unknown field is refused instead of ignored."""

    def remove_invalid_fields(self, queryset: Any, fields: Any, view: Any, request: Any) -> Any:
        valid = {item[0] for item in self.get_valid_fields(queryset, view, {"request": request})}
        unknown = [field for field in fields if field.lstrip("-") not in valid]
        if unknown:
            raise InvalidInput(
                f"Cannot order by {', '.join(unknown)}. Use one of: {', '.join(sorted(valid))}."
            )
        return fields
