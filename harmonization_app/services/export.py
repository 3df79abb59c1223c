"""Export packages: asked for by a person, built and verified by a worker, downloaded by who may."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from harmonization_app.models import DataLock, DataLockState, Export, ExportState
from harmonization_app.offline.verify_package import INDEX_SCHEMA, PIECE_BYTES, verify
from harmonization_app.services import export_contents as contents
from harmonization_app.services.data_lock import build_manifest
from harmonization_app.services.lock_checklist import checklist
from harmonization_app.services.package_writer import PackageWriter
from hub.core.audit.anchor import write_anchor
from hub.core.audit.services import record
from hub.core.canonical import canonical_json
from hub.core.errors import Conflict, NotAllowed, NotFound, StorageFull
from hub.core.ids import uuid7
from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.services import enqueue
from hub.core.storage.blobs import get_blob, require_free_space, root, sync_directory
from sites_app.models import Instance, Membership, Role, Trial

JOB = "harmonization.export"
AREA = "exports"
PARTIAL = ".partial-"
EXPORTERS = frozenset({Role.TRIAL_ADMINISTRATOR, Role.DATA_MANAGER, Role.STATISTICIAN, Role.AUDITOR})
_FILES_PER_REPORT = 500


def visible_exports(user: Any) -> Any:
    """Return the exports that a user may see and download: those of trials that the user may export."""
    rows = Export.objects.visible_to(user)
    if not user.is_authenticated or user.is_superuser:
        return rows
    trials = Membership.objects.filter(user=user, site=None, role__in=EXPORTERS, is_active=True)
    return rows.filter(trial_id__in=trials.values("trial_id"))


def may_export(user: Any, trial: Trial) -> bool:
    """Whether the user may export the trial: a package holds all sites, so only a role for the whole trial may."""
    if not user.is_authenticated or not user.is_active:
        return False
    return (
        bool(user.is_superuser)
        or Membership.objects.filter(
            user=user, trial=trial, site=None, role__in=EXPORTERS, is_active=True
        ).exists()
    )


def start_export(*, actor: Any, trial: Trial, include_images: bool = False) -> Export:
    """Ask for a package of a trial: complete after data lock, marked as not locked before. Raises NotAllowed."""
    if not may_export(actor, trial):
        who = ", ".join(sorted(Role(role).label for role in EXPORTERS))
        raise NotAllowed(
            f"Your role does not allow you to export this trial. It is allowed, for the whole trial, to: {who}."
        )
    require_free_space()
    with transaction.atomic():
        row = Export.objects.create(trial=trial, include_images=include_images, created_by=actor)
        enqueue_export(row)
        record(actor=actor, action="export.requested", obj=row, new={"include_images": include_images})
    return row


def enqueue_export(row: Export) -> None:
    """Give an export its job; the caller holds the transaction."""
    job = enqueue(
        JOB,
        key=str(row.pk),
        arguments={"export_id": str(row.pk)},
        scope=row.trial_id,
        requested_by=row.created_by,
    )
    row.job_id = job.pk
    row.save(update_fields=["job_id"])


def execute_export(context: JobContext, *, export_id: str) -> None:
    """Build a package on disk, verify it as its readers will, and only then publish it.

    Raises Conflict where it does not verify, NotFound where stored content is absent or damaged, StorageFull.
    """
    row = Export.objects.select_related("trial").get(pk=export_id)
    if row.is_final:
        _remove_leftovers(row)  # a former attempt may have lost the database at its commit
        return
    Export.objects.filter(pk=row.pk, state=ExportState.QUEUED).update(state=ExportState.RUNNING)
    _require_room(row)
    partial = root(AREA) / f"{row.pk}{PARTIAL}{uuid7()}"
    try:
        built = _build(context, row, partial)
        context.progress(0.9, "verifying the package")
        outcome = verify(partial)
        if not outcome.intact:
            raise Conflict(
                f"The package does not verify: {outcome.problem}. Nothing was published. If the trial was being"
                " changed meanwhile, start the export again; otherwise run manage.py verify_audit."
            )
        _finish(row, ExportState.SUCCEEDED, "", built, partial)
    except OSError as error:
        raise StorageFull(
            "The hub could not write the package to its disk. Nothing was published."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def fail_export(arguments: dict[str, Any], reason: str) -> None:
    """Give an export whose job failed or was cancelled its final state and reason."""
    row = Export.objects.filter(pk=arguments["export_id"]).first()
    if row is not None and not row.is_final:
        _finish(row, ExportState.FAILED, reason, None, None)


def open_package(*, actor: Any, export: Export) -> Iterator[bytes]:
    """Return the pieces of a finished package; the download is recorded.

    Raises NotAllowed, Conflict before it is finished, NotFound where its file is absent or was cut short.
    """
    if not may_export(actor, export.trial):
        raise NotAllowed("Your role does not allow you to download exports of this trial.")
    if export.state != ExportState.SUCCEEDED:
        raise Conflict(
            f"This export is {export.get_state_display()}; there is no package. {export.reason}".strip()
        )
    path = package_path(export)
    if not path.exists() or path.stat().st_size != export.size:
        raise NotFound("The package is not on the hub's disk as it was made. Make a new export.")
    record(actor=actor, action="export.downloaded", obj=export, new={"sha256": export.package_sha256})
    return _file_pieces(path)


def package_path(export: Export) -> Path:
    return root(AREA) / f"{export.pk}-{export.package_sha256}.zip"


def package_name(export: Export) -> str:
    """Return the name under which a package is downloaded."""
    status = "locked" if export.locked else "not-locked"
    return f"{export.trial.code}-{status}-{export.pk}.zip"


@dataclass(frozen=True)
class _Built:
    locked: bool
    manifest_digest: str
    package_sha256: str
    size: int
    files: int


def _build(context: JobContext, row: Export, path: Path) -> _Built:
    trial = Trial.objects.get(pk=row.trial_id)
    lock = DataLock.objects.filter(trial=trial, state=DataLockState.LOCKED).first()
    if lock is not None:
        content = get_blob(lock.manifest_digest)
    else:
        content = canonical_json(
            contents.signed(contents.interim_manifest(build_manifest(trial, checklist(trial))))
        )
    manifest = json.loads(content)
    name = f"{trial.code}.zip"
    with PackageWriter(path) as writer:
        writer.add("manifest.json", [content])
        writer.add_all(
            contents.guide_files(trial, locked=lock is not None, include_images=row.include_images, name=name)
        )
        context.progress(0.05, "versions, features and runs")
        writer.add_all(contents.manifest_files(trial, manifest))
        context.progress(0.2, "records")
        writer.add_all(contents.record_files(trial))
        if row.include_images:
            _add_images(context, writer, trial, len(manifest["instances"]))
        context.progress(0.8, "audit trail")
        writer.add_all(contents.signature_file(trial))
        # The audit trail comes last: everything exported so far is in the chain before its anchored head.
        write_anchor(settings.HUB_ANCHOR_FILE, purpose=f"export {row.pk}")
        anchors = contents.anchor_lines(str(trial.pk))
        writer.add_all(contents.audit_files(str(trial.pk), anchors))
        head = {name: anchors[-1][name] for name in ("chain", "sequence", "hash")}
        writer.add("package.json", [canonical_json(contents.signed(_index(row, manifest, writer, head)))])
    digest, size = _digest_of_file(path)
    return _Built(lock is not None, writer.digests["manifest.json"], digest, size, len(writer.files))


def _index(
    row: Export, manifest: dict[str, Any], writer: PackageWriter, head: dict[str, Any]
) -> dict[str, Any]:
    locked = manifest["schema"] == "hub.data-lock-manifest/1"
    return {
        "schema": INDEX_SCHEMA,
        "export": str(row.pk),
        "trial": manifest["trial"],
        "status": "locked" if locked else "not locked",
        "created_at": timezone.now().isoformat(),
        "hub_version": settings.VERSION,
        "include_images": row.include_images,
        "manifest": writer.digests["manifest.json"],
        "audit": head,
        "files": sorted(writer.files, key=lambda item: str(item["path"])),
    }


def _add_images(context: JobContext, writer: PackageWriter, trial: Trial, total: int) -> None:
    for number, (path, pieces) in enumerate(contents.image_files(trial), start=1):
        writer.add(path, pieces)
        if number % _FILES_PER_REPORT == 0:
            context.progress(0.3 + 0.5 * number / max(total, number), f"{number:,} of {total:,} images")


def _finish(row: Export, state: str, reason: str, built: _Built | None, partial: Path | None) -> None:
    with transaction.atomic():
        locked = Export.objects.select_for_update(no_key=True).get(pk=row.pk)
        if locked.is_final:
            return
        before = locked.state
        if built is not None and partial is not None:
            locked.locked, locked.manifest_digest = built.locked, built.manifest_digest
            locked.package_sha256, locked.size = built.package_sha256, built.size
            _publish(partial, package_path(locked))
        locked.state, locked.reason, locked.finished_at = state, reason[:2000], timezone.now()
        locked.save()
        record(
            actor=None,
            action=f"export.{state}",
            obj=locked,
            old={"state": before},
            new={
                "state": state,
                "locked": locked.locked,
                "manifest": locked.manifest_digest,
                "sha256": locked.package_sha256,
                "size": locked.size,
                "files": built.files if built else 0,
            },
            reason=reason[:500],
        )
    _remove_leftovers(locked)


def _publish(partial: Path, path: Path) -> None:
    """Make the package durable under its name before the row says that it is there."""
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(partial, path)
    sync_directory(path.parent)


def _remove_leftovers(row: Export) -> None:
    """Remove what attempts that did not end left behind."""
    kept = package_path(row)
    for path in root(AREA).glob(f"{row.pk}*"):
        if path != kept:
            path.unlink(missing_ok=True)


def _require_room(row: Export) -> None:
    require_free_space()
    images = Instance.objects.filter(trial=row.trial_id).aggregate(total=Sum("size"))["total"] or 0
    usage = shutil.disk_usage(root(AREA))
    if row.include_images and usage.free - images < usage.total * settings.HUB_FREE_SPACE_FLOOR:
        raise Conflict(
            f"The images have {images / 1e9:.1f} GB and the hub's disk has {usage.free / 1e9:.1f} GB left."
            " Export without images, or ask the administrator for room."
        )


def _digest_of_file(path: Path) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    for piece in _file_pieces(path):
        hashed.update(piece)
        size += len(piece)
    return hashed.hexdigest(), size


def _file_pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece
