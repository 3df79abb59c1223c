"""Export packages: what they hold, who may have them, and that they verify."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest
from django.core.management import call_command
from django.db import InternalError, transaction
from export_cases import add_images, make_world, members_of
from harmonization_cases import job_context, plan_document
from rest_framework.test import APIClient

from harmonization_app.models import Export, ExportState
from harmonization_app.services import export as export_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from harmonization_app.services.data_lock import read_manifest
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, NotAllowed, NotFound
from hub.core.jobs.services import cancel
from hub.core.models import Job
from hub.core.signatures.keys import public_key
from hub.core.storage.blobs import get_blob, root
from sites_app.models import Instance, Role
from tests.factories.sites_app import MembershipFactory, TrialFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def world():
    return make_world()


def package_of(export):
    return b"".join(export_services._file_pieces(export_services.package_path(export)))


def client_of(user):
    client = APIClient()
    client.force_authenticate(user)
    return client


def test_a_package_of_locked_data_holds_everything_and_verifies(world, capsys):
    lock = world.lock()

    export = world.export()

    members = members_of(package_of(export))
    manifest = read_manifest(lock)
    assert (export.state, export.locked, export.manifest_digest) == ("succeeded", True, lock.manifest_digest)
    assert members["manifest.json"] == get_blob(lock.manifest_digest)
    protocol, run = manifest["protocols"][0], manifest["runs"][0]
    assert hashlib.sha256(members[f"protocols/{protocol['id']}.json"]).hexdigest() == protocol["digest"]
    assert members[f"runs/{run['id']}/data.csv"] == get_blob(world.run.data_digest)
    assert json.loads(members[f"runs/{run['id']}/run.json"])["in_manifest"] is True
    assert json.loads(members[f"runs/{run['id']}/report.json"])["kind"] == "primary"
    assert members["public_key.txt"].decode().strip() == public_key()
    assert not [name for name in members if name.startswith("images/")]
    assert len([name for name in members if name.startswith("receipts/")]) == 1
    assert len(members["records/instance.jsonl"].splitlines()) == len(manifest["instances"]) == 3
    call_command("verify_lock", str(export_services.package_path(export)))
    assert capsys.readouterr().out.startswith("intact: trial DEMO, LOCKED; ")


def test_a_package_of_data_that_are_not_locked_says_so_everywhere(world, capsys):
    export = world.export()

    members = members_of(package_of(export))
    manifest, index = json.loads(members["manifest.json"]), json.loads(members["package.json"])
    assert export.locked is False
    assert (manifest["schema"], index["status"]) == ("hub.interim-manifest/1", "not locked")
    assert "locked_at" not in manifest
    assert b"NOT LOCKED" in members["README.txt"]
    assert "not-locked" in export_services.package_name(export)
    call_command("verify_lock", str(export_services.package_path(export)))
    assert "NOT LOCKED" in capsys.readouterr().out


def test_the_verifier_in_the_package_needs_nothing_else(world, tmp_path):
    world.lock()
    export = world.export(include_images=True)
    path = export_services.package_path(export)
    with zipfile.ZipFile(path) as archive:
        archive.extract("verify_package.py", tmp_path)
    script = [sys.executable, "-I", "-S", str(tmp_path / "verify_package.py"), str(path)]

    done = subprocess.run(script, capture_output=True, text=True, check=False, env={}, cwd=tmp_path)
    other = subprocess.run(
        [*script, "--public-key", "ab" * 32],
        capture_output=True,
        text=True,
        check=False,
        env={},
        cwd=tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "3 instances (each image checked)" in done.stdout
    assert public_key() in done.stdout
    assert other.returncode == 1
    assert "not with abab" in other.stderr


def test_images_are_the_stored_instances(world):
    export = world.export(include_images=True)

    members = members_of(package_of(export))
    images = {name: content for name, content in members.items() if name.startswith("images/")}
    assert {
        f"images/{row.series_id}/{row.sop_instance_uid}.dcm": row.sha256 for row in Instance.objects.all()
    } == {name: hashlib.sha256(content).hexdigest() for name, content in images.items()}


def test_what_comes_after_the_lock_is_in_the_package_but_not_in_the_manifest(world):
    world.lock()
    later = run_services.start_run(
        actor=world.admin, feature_set=world.run.feature_set, specification=plan_document()
    )
    run_execution.execute_run(job_context(), run_id=str(later.pk))

    members = members_of(package_of(world.export()))

    run = json.loads(members[f"runs/{later.pk}/run.json"])
    assert (run["kind"], run["in_manifest"]) == ("exploratory", False)
    assert f"runs/{later.pk}/data.csv" in members


def test_every_event_of_the_trial_is_in_the_package_and_the_last_is_anchored(world):
    export = world.export()

    members = members_of(package_of(export))
    events = [json.loads(line) for line in members["audit/events.jsonl"].splitlines()]
    anchor = json.loads(members["audit/anchors.jsonl"].splitlines()[-1])
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["action"] == "export.requested"
    assert (anchor["sequence"], anchor["purpose"]) == (len(events), f"export {export.pk}")
    done = AuditEvent.objects.get(scope=world.trial.pk, action="export.succeeded")
    assert export.package_sha256 in done.payload


def test_keyed_digests_of_people_stay_in_the_hub(world):
    world.trial.subjects.update(patient_digest="5ec2e7" * 10)

    members = members_of(package_of(world.export()))

    assert not [name for name, content in members.items() if b"5ec2e7" in content]


def test_the_same_job_twice_makes_one_package(world):
    export = world.export()

    export_services.execute_export(job_context(), export_id=str(export.pk))

    assert [path.name for path in root("exports").iterdir()] == [f"{export.pk}-{export.package_sha256}.zip"]
    assert AuditEvent.objects.filter(action="export.succeeded").count() == 1


def test_an_export_follows_its_job_that_is_cancelled_before_it_begins(world):
    started = export_services.start_export(actor=world.admin, trial=world.trial)

    cancel(row=Job.objects.get(pk=started.job_id))

    started.refresh_from_db()
    assert (started.state, started.reason) == ("failed", "Cancelled on request.")


def test_a_damaged_image_fails_the_export_and_leaves_nothing(world):
    for pack in root("packs").glob("*/*/*.pack"):
        pack.write_bytes(b"x" * pack.stat().st_size)
    row = export_services.start_export(actor=world.admin, trial=world.trial, include_images=True)

    with pytest.raises(NotFound, match="is damaged") as refused:
        export_services.execute_export(job_context(), export_id=str(row.pk))
    export_services.fail_export({"export_id": str(row.pk)}, refused.value.detail)

    row.refresh_from_db()
    assert row.state == ExportState.FAILED
    assert "is damaged" in row.reason
    assert list(root("exports").iterdir()) == []
    with pytest.raises(Conflict, match="there is no package"):
        export_services.open_package(actor=world.admin, export=row)


def test_a_changed_audit_trail_is_not_published(world):
    event = AuditEvent.objects.filter(scope=world.trial.pk).order_by("sequence").first()
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_audit_event DISABLE TRIGGER USER")
        cursor.execute("UPDATE core_audit_event SET actor_name = 'x' WHERE id = %s", [event.pk])
        cursor.execute("ALTER TABLE core_audit_event ENABLE TRIGGER USER")

    with pytest.raises(Conflict, match="event 1: its content does not match its hash"):
        world.export()
    assert list(root("exports").iterdir()) == []


def test_an_unreadable_anchor_file_is_named(world, settings):
    settings.HUB_ANCHOR_FILE.parent.mkdir(parents=True, exist_ok=True)
    settings.HUB_ANCHOR_FILE.write_text("{torn\n")

    with pytest.raises(Conflict, match="Line 1 of the anchor file"):
        world.export()


def test_a_finished_export_never_changes(world):
    export = world.export()

    with pytest.raises(InternalError, match="immutable"), transaction.atomic():
        Export.objects.filter(pk=export.pk).update(locked=True)


@pytest.mark.parametrize(
    ("role", "whole_trial", "status"),
    [
        (Role.TRIAL_ADMINISTRATOR, True, 202),
        (Role.DATA_MANAGER, True, 202),
        (Role.STATISTICIAN, True, 202),
        (Role.AUDITOR, True, 202),
        (Role.DATA_MANAGER, False, 403),
        (Role.SITE_COORDINATOR, False, 403),
        (Role.MONITOR, True, 403),
        (Role.IMAGING_REVIEWER, True, 403),
        (Role.SPONSOR, True, 403),
    ],
)
def test_who_may_export(role, whole_trial, status):
    trial = TrialFactory()
    admin = MembershipFactory(trial=trial, role=Role.TRIAL_ADMINISTRATOR).user
    existing = export_services.start_export(actor=admin, trial=trial)
    from tests.factories.sites_app import SiteFactory

    site = None if whole_trial else SiteFactory(trial=trial)
    client = client_of(MembershipFactory(trial=trial, role=role, site=site).user)

    answer = client.post("/api/v1/exports/", {"trial": str(trial.pk)}, format="json")

    assert answer.status_code == status
    assert Export.objects.count() == 1 + (status == 202)
    seen = 200 if status == 202 else 404
    assert client.get(f"/api/v1/exports/{existing.pk}/").status_code == seen
    assert client.get(f"/api/v1/exports/{existing.pk}/package/").status_code == (409 if seen == 200 else 404)


def test_another_trial_s_export_is_not_there():
    existing = export_services.start_export(
        actor=(admin := MembershipFactory(role=Role.TRIAL_ADMINISTRATOR)).user, trial=admin.trial
    )
    stranger = MembershipFactory(role=Role.TRIAL_ADMINISTRATOR).user

    with pytest.raises(NotAllowed):
        export_services.start_export(actor=stranger, trial=admin.trial)
    client = client_of(stranger)
    assert client.get("/api/v1/exports/").json()["results"] == []
    assert client.get(f"/api/v1/exports/{existing.pk}/package/").status_code == 404
    answer = client.post("/api/v1/exports/", {"trial": str(admin.trial_id)}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "trial")


def test_the_package_is_downloaded_by_api(world):
    export = world.export()
    client = client_of(world.admin)

    shown = client.get(f"/api/v1/exports/{export.pk}/").json()
    answer = client.get(shown["package"])

    content = b"".join(answer.streaming_content)
    assert hashlib.sha256(content).hexdigest() == shown["package_sha256"]
    assert int(answer["Content-Length"]) == len(content) == shown["size"]
    assert AuditEvent.objects.filter(action="export.downloaded", actor_id=world.admin.pk).count() == 1


def test_a_package_that_was_cut_short_on_disk_is_not_served(world):
    export = world.export()
    path = export_services.package_path(export)
    path.write_bytes(path.read_bytes()[:-1])

    answer = client_of(world.admin).get(f"/api/v1/exports/{export.pk}/package/")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_instances_of_every_series_are_exported(world):
    add_images(world.trial, count=2)

    manifest = json.loads(members_of(package_of(world.export(include_images=True)))["manifest.json"])

    assert len(manifest["instances"]) == 5
