"""Lists are `{next, previous, results}`, paged by keyset, with no counting."""

from rest_framework.pagination import CursorPagination


class KeysetPagination(CursorPagination):
    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 1000
    ordering = "-id"

    def get_ordering(self, request, queryset, view):  # type: ignore[no-untyped-def]
        ordering = super().get_ordering(request, queryset, view)
        if not any(field.lstrip("-") in {"id", "pk"} for field in ordering):
            ordering = (*ordering, "-id")
        return tuple(ordering)
