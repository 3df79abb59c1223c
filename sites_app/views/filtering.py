"""Filters of a list, from the query string: only the named ones, and only where they have a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest


@dataclass(frozen=True)
class Filters:
    """`values` are shown again in the form; `lookups` maps each name to the lookup it stands for."""

    values: Mapping[str, str]
    lookups: Mapping[str, str]

    def apply(self, rows: QuerySet) -> Any:
        chosen = {self.lookups[name]: value for name, value in self.values.items() if value}
        return rows.filter(**chosen)

    @property
    def any(self) -> bool:
        return any(self.values.values())


def chosen_filters(request: HttpRequest, lookups: Mapping[str, str]) -> Filters:
    values = {name: request.GET.get(name, "").strip().replace("\x00", "") for name in lookups}
    return Filters(values, lookups)
