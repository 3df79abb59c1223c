"""Harmonization plans: draft, check, lock, amend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from harmonization_app.algorithms.base import Dataset, Finding
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.models import AlgorithmVersion, AlgorithmVersionState, FeatureSet, HarmonizationPlan
from harmonization_app.permissions import require_analyst, require_locker
from harmonization_app.plan_document import PlanDocument, PlanInvalid, parse_plan
from harmonization_app.services.algorithm import register_algorithms, require_present_code
from harmonization_app.services.feature_set import load_table
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


def prepare_dataset(parsed: PlanDocument, feature_set: FeatureSet) -> Dataset:
    """Return the dataset that a plan makes of a feature set: batch, covariates, excluded rows left out.

    Raises InvalidInput for a column or row that the feature set does not have.
    """
    specification = parsed.specification
    table = load_table(feature_set)
    keys = {"subject": table.subjects, "visit": table.visits}
    names = specification.columns
    dataset = table.to_dataset(parsed.batch, [name for name in names if name not in keys])
    unknown = [row for row in parsed.exclude_rows if row not in dataset.rows]
    if unknown:
        raise InvalidInput(
            f"The plan excludes rows that the feature set does not have: {', '.join(unknown)}."
        )
    numeric = {covariate.name for covariate in specification.covariates if covariate.kind == "continuous"}
    numeric |= {specification.time} if specification.time else set()
    columns = {**dataset.covariates, **{name: keys[name] for name in names if name in keys}}
    covariates = {
        name: tuple(_number(cell) if name in numeric else (cell or None) for cell in column)
        for name, column in columns.items()
    }
    kept = [index for index, row in enumerate(dataset.rows) if row not in parsed.exclude_rows]
    whole = Dataset(
        dataset.values, dataset.features, dataset.rows, dataset.batches, covariates, dataset.units
    )
    return whole.select(kept)


def _number(cell: Any) -> Any:
    """Return a continuous covariate's number; what is none stays text, and the gate names it."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell or None


def check_plan(*, actor: Any, plan: HarmonizationPlan, feature_set: FeatureSet) -> tuple[Finding, ...]:
    """Return what the gate says of running `plan` on `feature_set`, without running. Raises NotAllowed."""
    return check_document(actor=actor, trial=plan.trial, document=plan.document, feature_set=feature_set)


def check_document(
    *, actor: Any, trial: Trial, document: Mapping[str, Any], feature_set: FeatureSet
) -> tuple[Finding, ...]:
    """Return what the gate says of a plan's document that need not be stored. Raises NotAllowed, PlanInvalid."""
    require_analyst(actor, trial, "check harmonization plans")
    if feature_set.trial_id != trial.pk:
        raise InvalidInput("The feature set belongs to another trial.")
    parsed = parse_plan(document)
    dataset = prepare_dataset(parsed, feature_set)
    return get_algorithm(parsed.algorithm).validate(dataset, parsed.specification)


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
        # The digest binds the plan to the algorithm version as well as to its own words.
        row.digest = digest(
            {"document": row.document, "algorithm_version": row.algorithm_version.code_digest}
        )
        row.signature = sign(identity=identity, meaning=meaning, obj=row, object_digest=row.digest)
        HarmonizationPlan.objects.filter(trial=row.trial, name=row.name, state=VersionState.LOCKED).update(
            state=VersionState.SUPERSEDED
        )
        row.state = VersionState.LOCKED
        row.locked_at = timezone.now()
        row.save()
        record(
            actor=actor,
            action="harmonization_plan.locked",
            obj=row,
            old={"state": "draft"},
            new={"state": "locked", "digest": row.digest, "algorithm_version": str(row.algorithm_version)},
        )
    return row


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
