"""Pages of the core: jobs, the audit trail, one's own account."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from hub.core.accounts.second_factor import has_second_factor
from hub.core.audit.models import AuditEvent
from hub.core.audit.verification import verify
from hub.core.errors import NotAllowed
from hub.core.models import ElectronicSignature, Job
from hub.core.scopes import reachable, reads_audit

_PAGE = 50


@login_required
def jobs(request: HttpRequest) -> HttpResponse:
    """Work under way and done, newest first; the list renews itself."""
    rows = Job.objects.filter(reachable(request.user))
    chosen = request.GET.get("state", "")
    if chosen in Job.State.values:
        rows = rows.filter(state=chosen)
    page = Paginator(rows, _PAGE).get_page(request.GET.get("page"))
    template = "core/_jobs.html" if getattr(request, "htmx", False) else "core/jobs.html"
    return render(request, template, {"page": page, "states": Job.State.choices, "chosen": chosen})


@login_required
def audit(request: HttpRequest) -> HttpResponse:
    """The audit trail, filtered by action, person or object."""
    readable = AuditEvent.objects.filter(reads_audit(request.user))
    if not readable.exists():
        raise NotAllowed("The audit trail is for auditors and trial administrators.")
    filters = {key: request.GET.get(key, "").strip() for key in ("action", "actor_name", "object_id")}
    rows = readable
    for key, value in filters.items():
        if value:
            rows = rows.filter(**{f"{key}__icontains": value})
    page = Paginator(rows, _PAGE).get_page(request.GET.get("page"))
    for event in page:
        event.facts = _facts(event)
    return render(request, "core/audit.html", {"page": page, "filters": filters})


@login_required
def verify_audit(request: HttpRequest) -> HttpResponse:
    """Walk the chain now; answers a fragment."""
    if not AuditEvent.objects.filter(reads_audit(request.user)).exists():
        raise NotAllowed("The audit trail is verified by auditors and trial administrators.")
    return render(request, "core/_verification.html", {"result": verify(settings.HUB_ANCHOR_FILE)})


@login_required
def account(request: HttpRequest) -> HttpResponse:
    """Who one is here: roles, signatures, second factor."""
    memberships: Any = request.user.memberships.select_related("trial", "site").filter(is_active=True)
    return render(
        request,
        "core/account.html",
        {
            "memberships": memberships,
            "signatures": ElectronicSignature.objects.filter(signer=request.user)[:20],
            "second_factor": has_second_factor(request.user),
        },
    )


def _facts(event: AuditEvent) -> list[tuple[str, str, str]]:
    """Return (field, old, new) of each value that the event changed."""
    payload = json.loads(event.payload)
    old, new = payload.get("old", {}), payload.get("new", {})
    rows = [(key, str(old.get(key, "")), str(new.get(key, ""))) for key in {**old, **new}]
    return [(key, before[:300], after[:300]) for key, before, after in rows] + (
        [("reason", "", payload["reason"])] if payload.get("reason") else []
    )
