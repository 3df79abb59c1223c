"""What the pages of protocols and of QC profiles share: their versions, the draft, saving, locking, amending."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from hub.core.accounts.second_factor import has_second_factor
from hub.core.errors import Conflict, InvalidInput, NotFound
from qc_app.models import VersionState
from qc_app.permissions import can_draft_versions, can_lock_versions
from qc_app.services import versions
from qc_app.services.versions import VersionKind
from sites_app.models import LockState, Trial

_ACTS = ("draft", "create", "save", "lock", "amend", "discard", "dry-run")


@dataclass(frozen=True)
class VersionPages:
    """One kind of versioned document on pages: how it is called, and the prefix of its addresses' names."""

    kind: VersionKind[Any]
    noun: str
    prefix: str

    def address(self, trial: Trial, act: str = "") -> str:
        return reverse(f"{self.prefix}-{act}" if act else self.prefix, args=[trial.code])


def version_context(
    pages: VersionPages, request: HttpRequest, trial: Trial, *, drafting: bool = False
) -> dict[str, Any]:
    """Return the versions, the one shown, and what may be done.

    Shown is the draft when `drafting`, else the version of `?version=`, else the one in force, else the draft.
    """
    rows = list(pages.kind.model.objects.filter(trial=trial).select_related("signature"))
    asked = request.GET.get("version", "")
    shown = next((row for row in rows if str(row.version) == asked), None)
    if asked and shown is None:
        raise NotFound(f"This trial has no version {asked[:20]} of the {pages.noun}.")
    in_force = next((row for row in rows if row.state == VersionState.LOCKED), None)
    draft = next((row for row in rows if row.state == VersionState.DRAFT), None)
    shown = (draft if drafting else shown or in_force) or draft or in_force
    changeable = trial.lock_state != LockState.LOCKED
    return {
        "noun": pages.noun,
        "versions": rows,
        "shown": shown,
        "in_force": in_force,
        "draft": draft,
        "shows_draft": shown is not None and shown == draft,
        "may_draft": changeable and can_draft_versions(request.user, trial.pk),
        "may_lock": changeable and can_lock_versions(request.user, trial.pk),
        "document_text": document_text(shown),
        "needs_otp": has_second_factor(request.user),
        "addresses": {act.replace("-", "_"): pages.address(trial, act) for act in _ACTS},
        "address": pages.address(trial),
    }


def document_text(row: Any) -> str:
    return json.dumps(row.document, indent=2, ensure_ascii=False) if row is not None else ""


def posted_document(request: HttpRequest) -> Any:
    """Return the JSON that was sent. Raises InvalidInput with the line and column of a fault in its syntax."""
    text = request.POST.get("document", "")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = (
            f"line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else "the text"
        )
        message = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise InvalidInput(
            f"The document is not JSON: {message} at {where}. Correct it and save again; nothing was changed.",
            errors=[{"field": where, "message": message}],
        ) from error


def get_draft(pages: VersionPages, trial: Trial) -> Any:
    """Return the trial's draft. Raises Conflict where there is none."""
    row = versions.draft_of(pages.kind, trial.pk)
    if row is None:
        raise Conflict(f"There is no draft {pages.noun}. Amend the one in force, or start a draft.")
    return row


def get_read_draft(pages: VersionPages, request: HttpRequest, trial: Trial) -> Any:
    """Return the draft that the person has read, by the digest on the page.

    Raises Conflict where it was changed since.
    """
    row = get_draft(pages, trial)
    if request.POST.get("digest", "") != row.digest:
        raise Conflict(f"The draft {pages.noun} was changed since you opened this page. Read it again first.")
    return row


def get_in_force(pages: VersionPages, trial: Trial) -> Any:
    row = versions.in_force(pages.kind, trial.pk)
    if row is None:
        raise Conflict(f"There is no {pages.noun} in force to amend.")
    return row


def signing(request: HttpRequest) -> dict[str, str]:
    """Return what a signature needs, as posted."""
    return {name: request.POST.get(name, "") for name in ("password", "meaning", "otp")}
