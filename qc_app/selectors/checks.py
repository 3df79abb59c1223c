"""What was judged of a series."""

from __future__ import annotations

from typing import Any

from hub.core.errors import NotFound
from hub.core.storage.blobs import get_blob
from qc_app.models import SeriesCheck
from sites_app.models import Series


def current_check(series: Series) -> SeriesCheck | None:
    """Return the judgement in force of a series, or None before its first check."""
    rows = SeriesCheck.objects.filter(series=series, is_current=True)
    return rows.select_related("protocol", "qc_profile", "replaced_by").first()


def verdicts_of(series: Series) -> dict[str, Any]:
    """Return the public form of a series' protocol judgement."""
    check = current_check(series)
    if check is None:
        return {
            "series": str(series.pk),
            "state": series.state,
            "outcome": "not_evaluable",
            "reason": series.reason or f"The series is {series.state}; it has not been judged yet.",
            "expected_series": "",
            "match": {},
            "protocol": None,
            "replaced_by": None,
            "verdicts": [],
        }
    protocol = check.protocol
    return {
        "series": str(series.pk),
        "state": series.state,
        "outcome": check.protocol_outcome,
        "reason": check.match.get("reason", ""),
        "expected_series": check.expected_key,
        "match": check.match,
        "protocol": None
        if protocol is None
        else {"id": str(protocol.pk), "version": protocol.version, "digest": check.protocol_digest},
        "replaced_by": str(check.replaced_by_id) if check.replaced_by_id else None,
        "verdicts": check.verdicts,
    }


def metrics_of(series: Series) -> dict[str, Any]:
    """Return the public form of a series' image quality."""
    check = current_check(series)
    if check is None:
        reason = series.reason or f"The series is {series.state}; it has not been measured yet."
        return {
            "series": str(series.pk),
            "state": series.state,
            "outcome": "not_evaluable",
            "reason": reason,
            "metrics": [],
        }
    return {
        "series": str(series.pk),
        "state": series.state,
        "outcome": check.qc_outcome,
        "reason": check.qc_reason,
        "metrics": check.metrics,
    }


def preview_of(series: Series) -> bytes:
    """Return the preview picture (PNG). Raises NotFound where there is none."""
    check = current_check(series)
    if check is None or not check.preview_digest:
        why = check.qc_reason if check is not None else "It has not been checked yet."
        raise NotFound(f"There is no preview of this series. {why}")
    return get_blob(check.preview_digest)
