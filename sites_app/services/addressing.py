"""Which visit a submission is for, named by ids or by codes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from hub.core.audit.services import record
from hub.core.errors import InvalidInput, NotFound
from sites_app.models import Site, Subject, Trial, Visit, VisitDefinition
from sites_app.permissions import UPLOADERS, require_role


def resolve_visit(*, actor: Any, trial: str, site: str, subject: str, visit: str) -> Visit:
    """Return the visit meant; each part is an id or a code, the visit also the id or code of its definition.

    The visit's row is made where only its definition stands. Raises NotFound for a trial or site out of the
    actor's scope, InvalidInput for an unknown subject or visit, NotAllowed for who may not send there.
    """
    found_trial = _one(Trial.objects.visible_to(actor), trial, "trial", "You see no trial")
    sites = Site.objects.visible_to(actor).filter(trial=found_trial)
    found_site = _one(sites, site, "site", f"You see no site of trial {found_trial.code}")
    require_role(actor, UPLOADERS, found_trial.pk, found_site.pk, "send images for this site")
    found_subject = _matching(Subject.objects.filter(site=found_site), subject).first()
    if found_subject is None:
        raise InvalidInput(
            f"Site {found_site.code} has no subject {_shown(subject)}. Check the code, or add the subject first"
            " (a coordinator or data manager can).",
            errors=[{"field": "subject", "message": "This subject is not known at this site."}],
            code="unknown_subject",
        )
    return _visit(actor, found_subject, visit)


def _visit(actor: Any, subject: Subject, visit: str) -> Visit:
    identifier = _uuid(visit)
    if identifier is not None:
        known = Visit.objects.filter(subject=subject, pk=identifier).first()
        if known is not None:
            return known
    definitions = VisitDefinition.objects.filter(trial_id=subject.trial_id)
    definition = _matching(definitions, visit).first()
    if definition is None:
        codes = ", ".join(definitions.values_list("code", flat=True)) or "none is defined yet"
        raise InvalidInput(
            f"There is no visit {_shown(visit)} for this subject. Use the visit's id or one of the codes: {codes}.",
            errors=[{"field": "visit", "message": "This visit is not known."}],
            code="unknown_visit",
        )
    found, created = Visit.objects.get_or_create(
        subject=subject,
        definition=definition,
        defaults={"trial_id": subject.trial_id, "site_id": subject.site_id},
    )
    if created:
        record(
            actor=actor,
            action="visit.added",
            obj=found,
            new={"subject": subject.code, "definition": definition.code},
        )
    return found


def _one(rows: QuerySet, text: str, field: str, sentence: str) -> Any:
    found = _matching(rows, text).first()
    if found is None:
        raise NotFound(
            f"{sentence} {_shown(text)}. Check the {field}'s id or code, and your role.",
            errors=[{"field": field, "message": "There is none that you may see."}],
        )
    return found


def _matching(rows: QuerySet, text: str) -> QuerySet:
    identifier = _uuid(text)
    condition = Q(code=text) if identifier is None else Q(pk=identifier) | Q(code=text)
    return rows.filter(condition)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    return f"“{text[:60]}”"
