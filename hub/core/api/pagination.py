"""Lists are `{next, previous, results}`, paged by keyset, with no counting."""

from rest_framework.pagination import CursorPagination

from hub.core.errors import InvalidInput


class KeysetPagination(CursorPagination):
    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 1000
    ordering = "-id"

    def get_page_size(self, request):  # type: ignore[no-untyped-def]
        """Return how many rows a page has. Raises InvalidInput where `limit` is no whole number from 1 on."""
        asked = request.query_params.get(self.page_size_query_param)
        if asked is not None and not (asked.isascii() and asked.isdigit() and int(asked)):
            problem = {"field": "limit", "message": f"“{asked[:40]}” is not a whole number from 1 on."}
            raise InvalidInput("limit says how many rows a page has, 1 to 1,000.", errors=[problem])
        return super().get_page_size(request)

    def get_ordering(self, request, queryset, view):  # type: ignore[no-untyped-def]
        ordering = super().get_ordering(request, queryset, view)
        if not any(field.lstrip("-") in {"id", "pk"} for field in ordering):
            ordering = (*ordering, "-id")
        return tuple(ordering)
