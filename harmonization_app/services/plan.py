"""Harmonization plans: draft, check, lock, amend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from harmonization_app.algorithms.base import Finding
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.models import AlgorithmVersion, AlgorithmVersionState, FeatureSet, HarmonizationPlan
from harmonization_app.permissions import require_analyst, require_locker
from harmonization_app.plan_document import PlanInvalid, parse_plan
from harmonization_app.services.algorithm import DigestDiffers, register_algorithms, require_present_code
from harmonization_app.services.preparation import check_prepared, memory_finding, prepare
from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict, InvalidInput
from hub.core.signatures.services import prove_identity, sign
from qc_app.models import VersionState
from sites_app.models import Trial


def save_draft(*, actor: Any, trial: Trial, document: Mapping[str, Any]) -> HarmonizationPlan:
    """Create the draft of a plan's name, or replace its document. Raises PlanInvalid, NotAllowed, Conflict."""
    require_analyst(actor, trial, "draft harmonization plans")
    return write_draft(actor=actor, trial=trial, document=document)


def write_draft(*, actor: Any, trial: Trial, document: Mapping[str, Any]) -> HarmonizationPlan:
    """Do what `save_draft` does, for callers that have checked the permission themselves."""
    parsed = parse_plan(document)
    content = dict(document)
    with transaction.atomic():
        versions = HarmonizationPlan.objects.select_for_update(no_key=True).filter(
            trial=trial, name=parsed.name
        )
        newest = versions.order_by("-version").first()
        if newest is not None and newest.state == VersionState.LOCKED:
            raise Conflict(f"The plan {parsed.name} is locked. Amend it to make the next version.")
        draft = newest if newest is not None and newest.state == VersionState.DRAFT else None
        old = {"digest": draft.digest} if draft else {}
        if draft is None:
            version = newest.version + 1 if newest else 1
            draft = HarmonizationPlan(trial=trial, name=parsed.name, version=version)
        draft.title, draft.document, draft.digest = parsed.title, content, digest(content)
        draft.save()
        record(
            actor=actor,
            action="harmonization_plan.updated" if old else "harmonization_plan.drafted",
            obj=draft,
            old=old,
            new={"digest": draft.digest, "version": draft.version},
        )
    return draft


def change_draft(*, actor: Any, plan: HarmonizationPlan, document: Mapping[str, Any]) -> HarmonizationPlan:
    """Replace the document of this draft. Raises PlanInvalid, NotAllowed, InvalidInput for another name, Conflict."""
    require_analyst(actor, plan.trial, "draft harmonization plans")
    if plan.state != VersionState.DRAFT:
        raise Conflict(f"This plan is {plan.state}; only a draft can be changed. Amend the locked version.")
    if document.get("name", plan.name) != plan.name:
        raise InvalidInput(
            f"This is the draft of {plan.name}, and a plan keeps its name. Make a new plan for another name.",
            errors=[{"field": "/name", "message": f"must stay {plan.name}"}],
        )
    return write_draft(actor=actor, trial=plan.trial, document=document)


def discard_draft(*, actor: Any, plan: HarmonizationPlan) -> None:
    """Delete a draft that no run was made with. Raises NotAllowed, Conflict."""
    require_analyst(actor, plan.trial, "discard drafts of harmonization plans")
    with transaction.atomic():
        row = HarmonizationPlan.objects.select_for_update(no_key=True).get(pk=plan.pk)
        if row.state != VersionState.DRAFT:
            raise Conflict(f"This plan is {row.state}; only a draft can be discarded.")
        if row.runs.exists():
            raise Conflict("Runs were made with this draft, and it stays as their record. Change it instead.")
        record(
            actor=actor,
            action="harmonization_plan.draft_discarded",
            obj=row,
            old={"name": row.name, "version": row.version, "digest": row.digest},
        )
        row.delete()


def check_plan(*, actor: Any, plan: HarmonizationPlan, feature_set: FeatureSet) -> tuple[Finding, ...]:
    """Return what the gate says of running `plan` on `feature_set`, without running. Raises NotAllowed."""
    findings = check_document(actor=actor, trial=plan.trial, document=plan.document, feature_set=feature_set)
    try:
        if plan.algorithm_version is not None:
            require_present_code(plan.algorithm_version)
    except DigestDiffers as error:
        message = f"{error.detail} Amend the plan and lock it on that version."
        return (Finding("algorithm_code_differs", "stop", message), *findings)
    return findings


def check_document(
    *, actor: Any, trial: Trial, document: Mapping[str, Any], feature_set: FeatureSet
) -> tuple[Finding, ...]:
    """Return what the gate says of a plan's document that need not be stored. Raises NotAllowed, PlanInvalid."""
    require_analyst(actor, trial, "check harmonization plans")
    if feature_set.trial_id != trial.pk:
        raise InvalidInput("The feature set belongs to another trial.")
    parsed = parse_plan(document)
    memory = memory_finding(parsed, feature_set)
    if memory.severity == "stop":
        return (memory,)
    return check_prepared(parsed, prepare(parsed, feature_set))


def lock_plan(
    *, actor: Any, plan: HarmonizationPlan, password: str, meaning: str, otp: str = ""
) -> HarmonizationPlan:
    """Lock a draft on the locked version of its algorithm; the former version is superseded.

    Raises NotAllowed, SignatureRefused, PlanInvalid, Conflict where it is no draft or its algorithm has no
    locked version of the present code.
    """
    require_locker(actor, plan.trial, "lock harmonization plans")
    identity = prove_identity(actor=actor, password=password, otp=otp)
    with transaction.atomic():
        row = HarmonizationPlan.objects.select_for_update(no_key=True).get(pk=plan.pk)
        if row.state != VersionState.DRAFT:
            raise Conflict(f"This plan is {row.state}; only a draft can be locked.")
        parsed = parse_plan(row.document)
        row.algorithm_version = locked_version(parsed.algorithm)
        row.companions = {name: locked_version(name).code_digest for name in parsed.companions}
        row.state, row.locked_at = VersionState.LOCKED, timezone.now()
        row.digest = digest(signed_content(row))
        row.signature = sign(identity=identity, meaning=meaning, obj=row, object_digest=row.digest)
        HarmonizationPlan.objects.filter(trial=row.trial, name=row.name, state=VersionState.LOCKED).update(
            state=VersionState.SUPERSEDED
        )
        row.save()
        record(
            actor=actor,
            action="harmonization_plan.locked",
            obj=row,
            old={"state": "draft"},
            new={
                "state": "locked",
                "digest": row.digest,
                "algorithm_version": str(row.algorithm_version),
                "companions": row.companions,
                "blinded": parsed.blinded,
            },
        )
    return row


def signed_content(plan: HarmonizationPlan) -> dict[str, Any]:
    """Return what the digest of a plan is over; a locked one's binds the code of every algorithm it names."""
    if plan.state == VersionState.DRAFT or plan.algorithm_version is None:
        return dict(plan.document)
    bound = {"document": plan.document, "algorithm_version": plan.algorithm_version.code_digest}
    return {**bound, "companions": plan.companions} if plan.companions else bound


def amend_plan(*, actor: Any, plan: HarmonizationPlan, reason: str) -> HarmonizationPlan:
    """Make the next draft from a locked plan. Raises NotAllowed, Conflict, InvalidInput without a reason."""
    require_analyst(actor, plan.trial, "amend harmonization plans")
    if not reason.strip():
        raise InvalidInput("An amendment needs its reason.")
    with transaction.atomic():
        row = HarmonizationPlan.objects.select_for_update(no_key=True).get(pk=plan.pk)
        if row.state != VersionState.LOCKED:
            raise Conflict(f"This plan is {row.state}; only the locked version is amended.")
        if HarmonizationPlan.objects.filter(
            trial=row.trial, name=row.name, state=VersionState.DRAFT
        ).exists():
            raise Conflict("There is a draft of this plan already; change that.")
        draft = HarmonizationPlan.objects.create(
            trial=row.trial,
            name=row.name,
            version=row.version + 1,
            title=row.title,
            document=row.document,
            digest=digest(row.document),
            amendment_reason=reason.strip(),
        )
        record(
            actor=actor,
            action="harmonization_plan.amended",
            obj=draft,
            new={"version": draft.version, "from": str(row.pk)},
            reason=reason,
        )
    return draft


def locked_version(algorithm: str) -> AlgorithmVersion:
    """Return the locked version of `algorithm` whose code this is. Raises Conflict saying what to do."""
    if get_algorithm(algorithm).exploratory:
        raise Conflict(
            f"The algorithm {algorithm} is exploratory: it searches in the data that it harmonizes, so that no plan"
            " can be locked with it. Run it without a plan, and lock a plan with what it found."
        )
    register_algorithms()
    for version in AlgorithmVersion.objects.filter(algorithm=algorithm, state=AlgorithmVersionState.LOCKED):
        try:
            require_present_code(version)
        except Conflict:
            continue
        return version
    raise Conflict(
        f"The algorithm {algorithm} has no locked version of the present code. Verify and lock it first"
        " (Algorithms page, or algorithm-versions/{id}/verify/ and /lock/)."
    )


def apply_plan_section(section: Any, value: Any) -> None:
    """The trial file's section `harmonization_plan`: keep the draft as the file says."""
    if not isinstance(value, dict):
        section.error("", "must be an object with the plan's document")
        return
    newest = (
        HarmonizationPlan.objects.filter(trial=section.trial, name=value.get("name", ""))
        .order_by("-version")
        .first()
    )
    if newest is not None and (newest.document == value or newest.state != VersionState.DRAFT):
        if newest.document != value:
            section.error("", f"differs from plan {newest}, which is {newest.state}; amend that in the hub")
        return
    try:
        draft = write_draft(actor=section.actor, trial=section.trial, document=value)
    except PlanInvalid as error:
        for item in error.errors:
            section.error(item["field"], item["message"])
        return
    section.changed(
        "updated" if newest else "created", f"harmonization plan {draft.name}", {"digest": draft.digest}
    )
