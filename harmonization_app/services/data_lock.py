"""Data lock: freeze, lock with manifest and signature. There is no unlocking."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from harmonization_app.models import (
    DataLock,
    DataLockState,
    FeatureSet,
    HarmonizationPlan,
    HarmonizationRun,
)
from harmonization_app.models.data_lock import DATA_LOCK_TRANSITIONS
from harmonization_app.permissions import require_locker
from harmonization_app.services.lock_checklist import ChecklistItem, checklist, unfinished_submissions
from hub.core.audit.anchor import write_anchor
from hub.core.audit.services import merkle_root, record
from hub.core.canonical import canonical_json, digest
from hub.core.errors import Conflict, NotFound
from hub.core.models import ElectronicSignature
from hub.core.signatures.keys import public_key, sign_bytes
from hub.core.signatures.services import prove_identity, sign
from hub.core.storage.blobs import get_blob, put_blob
from qc_app.models import Protocol, QCProfile
from sites_app.models import Instance, LockState, Trial


def open_data_lock(*, actor: Any, trial: Trial) -> DataLock:
    """Begin the data lock of a trial; there is one per trial. Raises NotAllowed."""
    require_locker(actor, trial, "lock the data of this trial")
    with transaction.atomic():
        row, created = DataLock.objects.get_or_create(trial=trial)
        if created:
            record(actor=actor, action="data_lock.opened", obj=row, new={"state": row.state})
    return row


def freeze(*, actor: Any, data_lock: DataLock, reason: str = "") -> DataLock:
    """Take no new data from now on; deviations and queries go on. Raises NotAllowed, Conflict."""
    require_locker(actor, data_lock.trial, "freeze this trial")
    with transaction.atomic():
        row, trial = _locked_rows(data_lock, DataLockState.FROZEN)
        _await_writers()
        waiting = unfinished_submissions(trial)
        if waiting:
            raise Conflict(
                f"{waiting} submission(s) are not finished. Wait for them, or cancel the open ones."
            )
        row.state, row.frozen_at = DataLockState.FROZEN, timezone.now()
        row.save()
        trial.lock_state = LockState.FROZEN
        trial.save(update_fields=["lock_state"])
        record(
            actor=actor,
            action="data_lock.frozen",
            obj=row,
            old={"state": "open"},
            new={"state": "frozen"},
            reason=reason,
        )
    return row


def unfreeze(*, actor: Any, data_lock: DataLock, reason: str) -> DataLock:
    """Take new data again. Raises NotAllowed, Conflict where it is not frozen or no reason is given."""
    require_locker(actor, data_lock.trial, "end the freeze of this trial")
    if not reason.strip():
        raise Conflict("Ending a freeze needs a reason.")
    with transaction.atomic():
        row, trial = _locked_rows(data_lock, DataLockState.OPEN)
        row.state = DataLockState.OPEN
        row.save()
        trial.lock_state = LockState.OPEN
        trial.save(update_fields=["lock_state"])
        record(
            actor=actor,
            action="data_lock.unfrozen",
            obj=row,
            old={"state": "frozen"},
            new={"state": "open"},
            reason=reason,
        )
    return row


def lock_data(*, actor: Any, data_lock: DataLock, password: str, meaning: str, otp: str = "") -> DataLock:
    """Lock the trial for good: manifest, signature, and an anchor of the audit chain outside the database.

    Raises NotAllowed, SignatureRefused, Conflict naming every condition that is not met.
    """
    require_locker(actor, data_lock.trial, "lock the data of this trial")
    identity = prove_identity(actor=actor, password=password, otp=otp)
    with transaction.atomic():
        row, trial = _locked_rows(data_lock, DataLockState.LOCKED)
        _await_writers()
        items = checklist(trial)
        unmet = [item for item in items if item.blocking and not item.met]
        if unmet:
            raise Conflict(
                "The checklist is not complete: "
                + "; ".join(f"{item.title} ({item.detail})" for item in unmet)
                + ". Nothing was locked.",
                errors=[{"field": item.code, "message": f"{item.title}: {item.detail}"} for item in unmet],
            )
        manifest = build_manifest(trial, items)
        content = canonical_json(manifest)
        row.manifest_digest = put_blob(content)
        row.checklist = [asdict(item) for item in items]
        row.signature = sign(identity=identity, meaning=meaning, obj=row, object_digest=row.manifest_digest)
        row.state, row.locked_at = DataLockState.LOCKED, timezone.now()
        row.save()
        trial.lock_state = LockState.LOCKED
        trial.save(update_fields=["lock_state"])
        record(
            actor=actor,
            action="data_lock.locked",
            obj=row,
            old={"state": "frozen"},
            new={"state": "locked", "manifest": row.manifest_digest},
            items=[item["sha256"] for item in manifest["instances"]],
        )
    write_anchor(settings.HUB_ANCHOR_FILE, purpose=f"data lock {row.pk}")
    return row


def build_manifest(trial: Trial, items: list[ChecklistItem]) -> dict[str, Any]:
    """Return the digest of every instance, protocol, profile, plan, feature set, run and signature."""
    instances = _instances(trial)
    versions = {
        name: _versions(model, trial)
        for name, model in (
            ("protocols", Protocol),
            ("qc_profiles", QCProfile),
            ("harmonization_plans", HarmonizationPlan),
        )
    }
    body = {
        "schema": "hub.data-lock-manifest/1",
        "trial": {"id": str(trial.pk), "code": trial.code, "title": trial.title},
        "locked_at": timezone.now().isoformat(),
        "hub_version": settings.VERSION,
        "checklist": [asdict(item) for item in items],
        **versions,
        "feature_sets": [
            {"id": str(row.pk), "name": row.name, "digest": row.digest, "data": row.data_digest}
            for row in FeatureSet.objects.filter(trial=trial).order_by("created_at")
        ],
        "runs": [_run(row) for row in HarmonizationRun.objects.filter(trial=trial).order_by("created_at")],
        "signatures": _signatures(trial),
        "instances_root": merkle_root(item["sha256"] for item in instances),
        "instances": instances,
    }
    return {
        **body,
        "public_key": public_key(),
        "hub_signature": sign_bytes(bytes.fromhex(digest(body))),
    }


def _instances(trial: Trial) -> list[dict[str, str]]:
    rows = Instance.objects.filter(trial=trial).order_by("sop_instance_uid", "id")
    values = rows.values_list("sop_instance_uid", "series_id", "sha256").iterator(chunk_size=10_000)
    return [
        {"sop_instance_uid": uid, "series": str(series), "sha256": content} for uid, series, content in values
    ]


def _signatures(trial: Trial) -> list[dict[str, str]]:
    return [
        {
            "id": str(row.pk),
            "printed_name": row.printed_name,
            "meaning": row.meaning,
            "signed_at": row.signed_at.isoformat(),
            "object": f"{row.object_type} {row.object_id}",
            "digest": row.object_digest,
        }
        for row in ElectronicSignature.objects.filter(scope=trial.pk).order_by("signed_at")
    ]


def _versions(model: Any, trial: Trial) -> list[dict[str, Any]]:
    return [
        {"id": str(row.pk), "version": row.version, "state": row.state, "digest": row.digest}
        for row in model.objects.filter(trial=trial).order_by("created_at")
    ]


def _run(row: HarmonizationRun) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "kind": row.kind,
        "state": row.state,
        "plan_digest": row.plan_digest,
        "algorithm": str(row.algorithm_version),
        "code_digest": row.algorithm_version.code_digest,
        "input": row.input_digest,
        "data": row.data_digest,
        "model": row.model_digest,
        "diagnostics": row.diagnostics_digest,
    }


def read_manifest(data_lock: DataLock) -> dict[str, Any]:
    """Return the manifest. Raises NotFound before the lock, or where its blob is damaged."""
    if not data_lock.manifest_digest:
        raise NotFound("There is no manifest before the data are locked.")
    return json.loads(get_blob(data_lock.manifest_digest))


def _locked_rows(data_lock: DataLock, target: str) -> tuple[DataLock, Trial]:
    trial = Trial.objects.select_for_update(no_key=True).get(pk=data_lock.trial_id)
    row = DataLock.objects.select_for_update(no_key=True).get(pk=data_lock.pk)
    if target not in DATA_LOCK_TRANSITIONS[row.state]:
        raise Conflict(f"The data lock is {row.state}; it cannot become {target}.")
    return row, trial


def _await_writers() -> None:
    """Wait until every transaction that writes rows of trials has ended, and hold new ones up until ours has.

    The guards read the trial's state when a row is written: without this, a row written just before could be
    committed just after the lock. Call it with the trial's row held: whoever starts or ends a run holds that row
    before it writes, and would wait for these tables while they wait for the row.
    """
    tables = sorted(
        model._meta.db_table
        for model in apps.get_models()
        if model is not DataLock and any(field.related_model is Trial for field in model._meta.fields)
    )
    with connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {', '.join(map(connection.ops.quote_name, tables))} IN SHARE MODE")
