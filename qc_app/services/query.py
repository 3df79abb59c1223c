"""Queries to a site: raised by a person or a rule, answered by the site, closed by who asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.errors import Conflict, InvalidInput
from qc_app.models import Deviation, Query, QueryMessage, QueryState
from qc_app.models.deviation import QUERY_TRANSITIONS
from qc_app.permissions import QUERY_ANSWERERS, QUERY_CLOSERS, QUERY_RAISERS
from qc_app.protocol.values import format_value
from qc_app.services.findings import ACTIVE
from sites_app.models import Series, Site, Subject, Visit
from sites_app.permissions import require_role

_MAX_TEXT = 4000


@dataclass(frozen=True)
class About:
    """What a query is about: always a site, and as much below it as is known."""

    site: Site
    subject: Subject | None = None
    visit: Visit | None = None
    series: Series | None = None
    deviation: Deviation | None = None

    @classmethod
    def deviation_(cls, deviation: Deviation) -> About:
        return cls(deviation.site, deviation.subject, deviation.visit, deviation.series, deviation)

    @classmethod
    def series_(cls, series: Series) -> About:
        return cls(series.site, series.subject, series.visit, series)


def raise_query(*, actor: Any, about: About, title: str, text: str, is_rescan_request: bool = False) -> Query:
    """Ask a site a question. Raises NotAllowed, InvalidInput where title or text lack."""
    site = about.site
    require_role(actor, QUERY_RAISERS, site.trial_id, site.pk, "ask a site a question")
    _require_text({"title": title, "text": text})
    with transaction.atomic():
        query = Query.objects.create(
            trial_id=site.trial_id,
            site=site,
            subject=about.subject,
            visit=about.visit,
            series=about.series,
            deviation=about.deviation,
            title=title.strip()[:300],
            text=text.strip()[:_MAX_TEXT],
            is_rescan_request=is_rescan_request,
            raised_by=actor,
        )
        record(
            actor=actor,
            action="query.raised",
            obj=query,
            new={
                "deviation": str(about.deviation.pk) if about.deviation else None,
                "rescan": is_rescan_request,
            },
        )
    return query


def request_rescan(*, actor: Any, series: Series, comment: str = "") -> Query:
    """Ask the site to acquire a series again, with the values to set, from its open deviations.

    Raises NotAllowed, Conflict where the series has no open deviation.
    """
    open_ones = list(Deviation.objects.filter(series=series, state__in=ACTIVE).order_by("opened_at", "rule"))
    if not open_ones:
        raise Conflict("This series has no open deviation, so there is nothing to set right by a new scan.")
    lines = [f"- {setting_text(row)}" for row in open_ones]
    asked = (
        f"Please acquire this series again for subject {series.subject} at {series.visit.definition}, with:"
    )
    text = "\n".join([asked, *lines, *([comment.strip()] if comment.strip() else [])])
    about = About(series.site, series.subject, series.visit, series, open_ones[0])
    name = open_ones[0].expected_key or series.modality
    return raise_query(
        actor=actor, about=about, title=f"Re-scan request: {name}", text=text, is_rescan_request=True
    )


def setting_text(deviation: Deviation) -> str:
    """Return what to set on the scanner: parameter, tag, the value wanted and the one found."""
    verdict = deviation.verdict
    observed = verdict["observed"]
    if isinstance(observed, dict):
        found = (
            ", ".join(format_value(item["value"], verdict["unit"]) for item in observed["values"])
            or "unreadable"
        )
    else:
        found = "not recorded" if observed is None else format_value(observed, verdict["unit"])
    return f"{verdict['label']} {verdict['source']}: {verdict['expected'].get('text', '')} (this series: {found})"


def answer_query(*, actor: Any, query: Query, text: str) -> Query:
    """Answer an open query for the site. Raises NotAllowed, InvalidInput, Conflict."""
    require_role(actor, QUERY_ANSWERERS, query.trial_id, query.site_id, "answer a query of this site")
    _require_text({"text": text})
    return _transition(actor, query, QueryState.ANSWERED, text)


def reopen_query(*, actor: Any, query: Query, text: str) -> Query:
    """Ask again where the answer does not suffice, saying why. Raises NotAllowed, InvalidInput, Conflict."""
    require_role(actor, QUERY_CLOSERS, query.trial_id, query.site_id, "reopen a query")
    _require_text({"text": text})
    return _transition(actor, query, QueryState.OPEN, text)


def close_query(*, actor: Any, query: Query, reason: str) -> Query:
    """Close a query with the reason. Raises NotAllowed, InvalidInput, Conflict."""
    require_role(actor, QUERY_CLOSERS, query.trial_id, query.site_id, "close a query")
    _require_text({"reason": reason})
    return _transition(actor, query, QueryState.CLOSED, reason)


def _transition(actor: Any, query: Query, to: QueryState, text: str) -> Query:
    with transaction.atomic():
        row = Query.objects.select_for_update(no_key=True, of=("self",)).get(pk=query.pk)
        if to not in QUERY_TRANSITIONS[row.state]:
            raise Conflict(f"This query is {row.state}; it cannot become {to.label} from there.")
        old, row.state = row.state, to
        if to == QueryState.CLOSED:
            row.closing_reason, row.closed_at = text.strip()[:1000], timezone.now()
        else:
            QueryMessage.objects.create(
                trial_id=row.trial_id,
                site_id=row.site_id,
                query=row,
                author=actor,
                text=text.strip()[:_MAX_TEXT],
            )
        row.save(update_fields=["state", "closing_reason", "closed_at"])
        action = "reopened" if to == QueryState.OPEN else to.value
        record(
            actor=actor,
            action=f"query.{action}",
            obj=row,
            old={"state": old},
            new={"state": row.state},
            reason=row.closing_reason if to == QueryState.CLOSED else "",
        )
    return row


def _require_text(fields: dict[str, str]) -> None:
    errors = [{"field": name, "message": "Write it."} for name, value in fields.items() if not value.strip()]
    if errors:
        raise InvalidInput("Some text is missing; see errors.", errors=errors)
