"""Reading studies, series, instances and their parameters."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Prefetch, QuerySet

from sites_app.models import Instance, Series, Study


def received_series(user: Any) -> QuerySet[Series]:
    """Return the series the user sees; one whose submission is not finished yet is not among them."""
    rows = Series.objects.visible_to(user).filter(instance_count__gt=0)
    return rows.select_related("site", "subject", "visit__definition", "study")  # type: ignore[no-any-return]


def received_studies(user: Any) -> QuerySet[Study]:
    """Return the studies the user sees that have a received series."""
    rows = Study.objects.visible_to(user).filter(series__instance_count__gt=0).distinct()
    return rows.select_related("site", "subject", "visit__definition").prefetch_related(  # type: ignore[no-any-return]
        Prefetch("series", queryset=Series.objects.filter(instance_count__gt=0))
    )


def received_instances(user: Any) -> QuerySet[Instance]:
    """Return the instances of received series that the user sees."""
    rows = Instance.objects.visible_to(user).filter(series__instance_count__gt=0)
    return rows.select_related("series")  # type: ignore[no-any-return]


def stored_originals(site_id: UUID, series_instance_uid: str) -> dict[str, tuple[str, UUID]]:
    """Return {SOPInstanceUID: (SHA-256 as received, visit id)} of what a site has stored of a series."""
    rows = Instance.objects.filter(
        site_id=site_id, series__site_id=site_id, series__series_instance_uid=series_instance_uid
    )
    return {
        uid: (original, visit)
        for uid, original, visit in rows.values_list(
            "sop_instance_uid", "original_sha256", "series__visit_id"
        )
    }


def parameters_of(series: Series) -> list[dict[str, Any]]:
    """Return what was read from a series: per parameter its values, unit, source and what is missing."""
    found = (series.observation or {}).get("parameters", {})
    return [
        {
            "keyword": keyword,
            "unit": item["unit"],
            "source": item["source"],
            "values": item["values"],
            "missing": item["missing"],
            "unparsable": item["unparsable"],
        }
        for keyword, item in sorted(found.items())
    ]
