"""How far a waiver reaches: the deviation it was signed for, or the same finding elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from django.utils import timezone

from qc_app.models import Deviation, DeviationState

SCOPES: Mapping[str, str] = {
    "series": "series_id",
    "visit": "visit_id",
    "subject": "subject_id",
    "scanner": "scanner_id",
    "site": "site_id",
}
_SAME_FINDING = ("outcome", "expected", "observed")


def is_expired(waiver: Mapping[str, Any] | None) -> bool:
    expires = (waiver or {}).get("expires_on")
    return bool(expires) and date.fromisoformat(str(expires)) < timezone.now().date()


def is_same_finding(former: Mapping[str, Any], verdict: Mapping[str, Any]) -> bool:
    return all(former.get(part) == verdict.get(part) for part in _SAME_FINDING)


def apply_waivers(new: Sequence[Deviation]) -> None:
    """Mark each unsaved deviation that a valid waiver covers as waived by it.

    A waiver reaches only the same rule of the same expected series with the same expected and observed value.
    """
    if not new:
        return
    waived = Deviation.objects.filter(
        trial_id=new[0].trial_id,
        state=DeviationState.WAIVED,
        rule__in={row.rule for row in new},
        signature__isnull=False,
    )
    valid = [row for row in waived if not is_expired(row.waiver)]
    for row in new:
        waiver = next((other for other in valid if _covers(other, row)), None)
        if waiver is not None:
            row.state, row.closed_at, row.closed_by_id = (
                DeviationState.WAIVED,
                timezone.now(),
                waiver.closed_by_id,
            )
            row.waiver = {**(waiver.waiver or {}), "covered_by": str(waiver.pk)}
            row.reason = waiver.reason


def _covers(waiver: Deviation, row: Deviation) -> bool:
    column = SCOPES[(waiver.waiver or {}).get("scope", "series")]
    place = getattr(waiver, column)
    return (
        place is not None
        and place == getattr(row, column)
        and (waiver.rule, waiver.expected_key) == (row.rule, row.expected_key)
        and is_same_finding(waiver.verdict, row.verdict)
    )
