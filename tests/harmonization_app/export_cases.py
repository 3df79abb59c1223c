"""A trial with everything that a package holds, and packages that somebody tampered with."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.models import DataLock, Export, HarmonizationRun
from harmonization_app.services import data_lock as lock_services
from harmonization_app.services import export as export_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from harmonization_app.services.export_contents import signed
from hub.core.canonical import canonical_json
from hub.core.models import Job
from hub.demo.features import as_csv, metadata
from hub.demo.trial import trial_document
from qc_app.models import Protocol, QCProfile
from qc_app.services import protocol as protocol_services
from qc_app.services import qc_profile as profile_services
from sites_app.ingest.packs import PackWriter
from sites_app.models import Role, SeriesState, Submission, Trial, Visit
from sites_app.services.receipt import issue_receipt
from sites_app.services.trial_file import apply_trial
from tests.factories.sites_app import (
    PASSWORD,
    InstanceFactory,
    MembershipFactory,
    SeriesFactory,
    SeriesSegmentFactory,
    StudyFactory,
)

SECTIONS = ("trial", "arms", "visit_definitions", "sites", "subjects", "protocol", "qc_profile")
SIGNATURE = {"password": PASSWORD, "meaning": "I approve this"}


@dataclass
class World:
    """The demonstration's trial with locked versions, features, one primary run, images and a receipt."""

    trial: Trial
    admin: Any
    run: HarmonizationRun

    def lock(self) -> DataLock:
        row = lock_services.open_data_lock(actor=self.admin, trial=self.trial)
        lock_services.freeze(actor=self.admin, data_lock=row)
        return lock_services.lock_data(actor=self.admin, data_lock=row, **SIGNATURE)

    def export(self, **options: Any) -> Export:
        row = export_services.start_export(actor=self.admin, trial=self.trial, **options)
        export_services.execute_export(job_context(), export_id=str(row.pk))
        Job.objects.filter(pk=row.job_id).update(state="succeeded")
        row.refresh_from_db()
        return row


def make_world() -> World:
    document = {key: value for key, value in trial_document().items() if key in SECTIONS}
    trial, _ = apply_trial(actor=None, content=json.dumps(document), name="trial.json")
    assert trial is not None
    admin = MembershipFactory(trial=trial, role=Role.TRIAL_ADMINISTRATOR).user
    protocol_services.lock_protocol(actor=admin, row=Protocol.objects.get(trial=trial), **SIGNATURE)
    profile_services.lock_profile(actor=admin, row=QCProfile.objects.get(trial=trial), **SIGNATURE)
    add_images(trial)
    return World(trial, admin, _primary_run(trial, admin))


def _primary_run(trial: Trial, admin: Any) -> HarmonizationRun:
    features = feature_services.import_feature_set(
        actor=admin, trial=trial, name="Features", content=as_csv().encode(), metadata=metadata()
    )
    locked_combat(admin)
    draft = plan_services.save_draft(actor=admin, trial=trial, document=plan_document())
    plan = plan_services.lock_plan(actor=admin, plan=draft, **SIGNATURE)
    run = run_services.start_run(actor=admin, feature_set=features, plan=plan)
    run_execution.execute_run(job_context(), run_id=str(run.pk))
    Job.objects.filter(pk=run.job_id).update(state="succeeded")
    run.refresh_from_db()
    return run


def add_images(trial: Trial, count: int = 3) -> None:
    """Store a series of `count` instances in a pack, with the receipt of its submission."""
    visit = _visit(trial)
    series = SeriesFactory(study=StudyFactory(visit=visit), state=SeriesState.CHECKED)
    pack = PackWriter(trial.pk, visit.pk, series.series_instance_uid)
    segment = SeriesSegmentFactory(id=pack.segment_id, series=series)
    for number in range(count):
        content = b"\0" * 128 + b"DICM" + bytes([number]) * (100 + number)
        InstanceFactory(
            segment=segment,
            instance_number=number + 1,
            offset=pack.append(content),
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
    pack.seal()
    receipt = issue_receipt(series.submission, [])
    Submission.objects.filter(pk=series.submission_id).update(receipt_digest=receipt)


def _visit(trial: Trial) -> Visit:
    subject = trial.subjects.order_by("code").first()
    definition = trial.visit_definitions.order_by("position").first()
    visit, _ = Visit.objects.get_or_create(
        trial=trial, site=subject.site, subject=subject, definition=definition
    )
    return visit


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def as_package(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return target.getvalue()


def signed_again(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """Return the members with a list of files that agrees with them, signed by the hub: an insider's forgery."""
    index = json.loads(members["package.json"])
    body = {key: value for key, value in index.items() if key not in ("public_key", "hub_signature")}
    body["files"] = [
        {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for path, content in sorted(members.items())
        if path != "package.json"
    ]
    body["manifest"] = hashlib.sha256(members["manifest.json"]).hexdigest()
    return {**members, "package.json": canonical_json(signed({**body, **changes}))}


def edited_lines(content: bytes, number: int, edit: Callable[[dict[str, Any]], None]) -> bytes:
    lines = content.splitlines(keepends=True)
    row = json.loads(lines[number])
    edit(row)
    lines[number] = json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    return b"".join(lines)
