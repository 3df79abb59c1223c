"""The way from a feature set to a locked, harmonized trial."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from django.db import InternalError, transaction
from harmonization_cases import job_context, lock_plan, locked_combat, locked_trial, plan_document

from harmonization_app.models import AlgorithmVersion, FeatureSet, HarmonizationPlan, RunState
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import data_lock as lock_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution, run_state
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, HubError, InvalidInput, NotAllowed
from hub.core.models import Job
from hub.core.signatures.services import SignatureRefused
from hub.core.storage.blobs import get_blob
from hub.demo.effects import measure_effects, read_values
from hub.demo.features import as_csv, feature_table, metadata
from tests.factories.sites_app import PASSWORD, SubjectFactory


def run_now(people, features, **what):
    row = run_services.start_run(actor=people.statistician, feature_set=features, **what)
    run_execution.execute_run(job_context(), run_id=str(row.pk))
    Job.objects.filter(pk=row.job_id).update(state="succeeded")
    row.refresh_from_db()
    return row


def test_the_same_table_again_is_the_same_feature_set(trial, people, features):
    again = feature_services.import_feature_set(
        actor=people.statistician, trial=trial, name="Other", content=as_csv().encode(), metadata=metadata()
    )

    assert again.pk == features.pk
    assert FeatureSet.objects.count() == 1


def test_unknown_subjects_are_named_by_row(trial, people):
    content = as_csv().replace(as_csv().splitlines()[1].split(",")[0], "NOBODY", 1).encode()

    with pytest.raises(HubError) as refused:
        feature_services.import_feature_set(
            actor=people.statistician, trial=trial, name="F", content=content, metadata=metadata()
        )

    assert "NOBODY" in json.dumps(refused.value.errors)
    assert FeatureSet.objects.count() == 0


def test_a_coordinator_may_not_import_features(trial, people):
    with pytest.raises(NotAllowed):
        feature_services.import_feature_set(
            actor=people.coordinator, trial=trial, name="F", content=b"", metadata={}
        )


@pytest.mark.parametrize(
    ("column", "cells"),
    [("treatment_arm", ("x", "y")), ("Treatment group", ("x", "y")), ("cohort", ("A", "B"))],
)
def test_a_column_that_tells_the_treatment_arm_is_refused(trial, people, column, cells):
    lines = as_csv().splitlines()
    content = "\n".join(
        [f"{lines[0]},{column}"] + [f"{line},{cells[index % 2]}" for index, line in enumerate(lines[1:])]
    )

    with pytest.raises(InvalidInput, match="tells the treatment arm"):
        feature_services.import_feature_set(
            actor=people.statistician, trial=trial, name="F", content=content.encode(), metadata=metadata()
        )


def test_a_feature_set_cannot_be_changed_by_sql(features):
    with pytest.raises(InternalError, match="immutable"), transaction.atomic():
        FeatureSet.objects.filter(pk=features.pk).update(name="other")


def test_verification_reproduces_the_packaged_suite_and_lock_is_signed(people):
    version = locked_combat(people.admin)

    assert version.state == "locked"
    assert version.verification["passed"] is True
    assert len(version.verification["cases"]) >= 4
    assert version.signature.object_digest == algorithm_services.lock_digest(version)
    assert version.second_signature.object_digest == algorithm_services.lock_digest(version)
    assert version.environment["packages"] if "packages" in version.environment else version.environment


def test_an_unverified_version_cannot_be_locked(people):
    version = algorithm_services.register_algorithms()[0]

    with pytest.raises(Conflict):
        algorithm_services.lock_algorithm(
            actor=people.admin, version=version, password=PASSWORD, meaning="I approve"
        )


def test_a_wrong_password_signs_nothing_and_is_kept_in_the_audit_trail(people):
    version = next(row for row in algorithm_services.register_algorithms() if row.algorithm == "combat")
    algorithm_services.verify_algorithm(version_id=str(version.pk))

    with pytest.raises(SignatureRefused):
        algorithm_services.lock_algorithm(actor=people.admin, version=version, password="wrong", meaning="x")

    version.refresh_from_db()
    assert version.state == "verified"
    assert AuditEvent.objects.filter(action="signature.refused", actor_id=people.admin.pk).count() == 1


def test_a_locked_algorithm_version_cannot_be_changed_by_sql(people):
    version = locked_combat(people.admin)

    with pytest.raises(InternalError, match="cannot be changed"), transaction.atomic():
        AlgorithmVersion.objects.filter(pk=version.pk).update(code_digest="0" * 64)


def test_code_that_is_not_the_locked_code_is_refused(trial, people, features, monkeypatch):
    plan = lock_plan(trial, people)
    row = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    monkeypatch.setattr(algorithm_services, "source_digest", lambda algorithm: "f" * 64)

    with pytest.raises(algorithm_services.DigestDiffers):
        run_execution.execute_run(job_context(), run_id=str(row.pk))

    with pytest.raises(algorithm_services.DigestDiffers):
        run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    stop = plan_services.check_plan(actor=people.statistician, plan=plan, feature_set=features)[0]
    assert (stop.code, stop.severity) == ("algorithm_code_differs", "stop")


def test_another_numerical_environment_is_refused_for_a_primary_run(trial, people, features, monkeypatch):
    plan = lock_plan(trial, people)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "changed")
    row = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)

    class Other:
        digest = "e" * 64

        def to_json(self):
            return {}

    monkeypatch.setattr(run_execution, "numerical_environment", lambda: Other())
    with pytest.raises(algorithm_services.DigestDiffers, match="another numerical environment"):
        run_execution.execute_run(job_context(), run_id=str(row.pk))


def test_a_plan_needs_a_locked_algorithm_version(trial, people):
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())

    with pytest.raises(Conflict, match="Verify and lock it first"):
        plan_services.lock_plan(actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve")


def test_a_locked_plan_is_amended_not_changed(trial, people):
    plan = lock_plan(trial, people)

    with pytest.raises(Conflict):
        plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document(title="New"))
    with pytest.raises(InternalError, match="cannot be changed"), transaction.atomic():
        HarmonizationPlan.objects.filter(pk=plan.pk).update(document={})
    draft = plan_services.amend_plan(actor=people.statistician, plan=plan, reason="One more feature")
    assert (draft.version, draft.state) == (2, "draft")


def test_a_faulty_plan_names_each_fault(trial, people):
    with pytest.raises(InvalidInput) as refused:
        plan_services.save_draft(
            actor=people.statistician, trial=trial, document=plan_document(algorithm="kombat")
        )

    assert refused.value.errors[0]["field"] == "/algorithm"
    assert "combat" in refused.value.errors[0]["message"]


def test_a_primary_run_removes_the_scanner_effect_and_keeps_age(trial, people, features):
    plan = lock_plan(trial, people)

    run = run_now(people, features, plan=plan)

    assert (run.state, run.kind, run.exploratory_reason) == (RunState.SUCCEEDED, "primary", "")
    before = measure_effects(feature_table().values)
    after = measure_effects(read_values(get_blob(run.data_digest).decode()))
    assert after.mean_eta_squared < 0.25 * before.mean_eta_squared
    assert abs(after.mean_relative_age_slope - 1) < 0.35
    assert run.summary["cross_check"]["passed"] is True
    assert run_services.load_diagnostics(run)["kind"] == "primary"


def test_every_output_says_that_a_run_was_exploratory(trial, people, features):
    run = run_now(people, features, specification=plan_document())

    rows = list(csv.DictReader(io.StringIO(get_blob(run.data_digest).decode())))
    with zipfile.ZipFile(io.BytesIO(get_blob(run.model_digest))) as archive:
        identity = json.loads(archive.read("run.json"))
    assert {row["harmonization_kind"] for row in rows} == {"exploratory"}
    assert identity["kind"] == "exploratory"
    assert run_services.load_diagnostics(run)["exploratory_reason"].startswith("no plan")


def test_the_gate_refuses_a_confounded_design_and_names_the_columns(trial, people, features):
    document = plan_document()
    document["parameters"] = {
        **document["parameters"],
        "covariates": [{"name": "site", "kind": "categorical"}],
    }

    run = run_now(people, features, specification=document)

    assert run.state == RunState.REFUSED
    assert "site" in run.reason
    assert run.data_digest == ""
    assert any(finding["severity"] == "stop" for finding in run.gate)


def test_a_longitudinal_method_takes_the_subject_from_the_rows_key(trial, people, features):
    document = plan_document(algorithm="longcombat")
    document["parameters"] = {
        key: value
        for key, value in document["parameters"].items()
        if key in {"covariates", "features", "pools", "seed"}
    } | {"subject": "subject", "time": "age"}

    run = run_now(people, features, specification=document)

    assert (run.state, run.reason) == (RunState.SUCCEEDED, "")


def test_a_finished_run_never_changes(trial, people, features):
    run = run_now(people, features, specification=plan_document())

    run_execution.execute_run(job_context(), run_id=str(run.pk))
    run_state.fail_run({"run_id": str(run.pk)}, "late")
    with pytest.raises(InternalError, match="immutable"), transaction.atomic():
        type(run).objects.filter(pk=run.pk).update(kind="primary")
    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED


def test_lock_names_every_condition_that_is_not_met(trial, people):
    lock = lock_services.open_data_lock(actor=people.admin, trial=trial)
    lock_services.freeze(actor=people.admin, data_lock=lock)

    with pytest.raises(Conflict) as refused:
        lock_services.lock_data(actor=people.admin, data_lock=lock, password=PASSWORD, meaning="Final")

    assert {item["field"] for item in refused.value.errors} == {"protocol_locked", "qc_profile_locked"}


def test_after_data_lock_the_database_refuses_writes_and_runs_are_exploratory(trial, people, features):
    plan = lock_plan(trial, people)

    locked_trial(trial, people)

    with pytest.raises(InternalError, match="locked"), transaction.atomic():
        SubjectFactory(site=trial.sites.first())
    with pytest.raises(InternalError, match="locked"), transaction.atomic():
        type(trial).objects.filter(pk=trial.pk).update(lock_state="open")
    with pytest.raises(Conflict):
        feature_services.import_feature_set(
            actor=people.statistician, trial=trial, name="F", content=b"", metadata={}
        )
    run = run_now(people, features, plan=plan)
    assert run.kind == "exploratory"
    assert run.exploratory_reason.startswith("post hoc")


def test_the_manifest_holds_every_digest_and_is_signed_by_the_hub(trial, people, features):
    from hub.core.canonical import digest
    from hub.core.signatures.keys import verify_bytes

    run = run_now(people, features, plan=lock_plan(trial, people))
    lock = locked_trial(trial, people)

    manifest = lock_services.read_manifest(lock)
    body = {key: value for key, value in manifest.items() if key not in {"public_key", "hub_signature"}}
    assert np.all([item["data"] for item in manifest["runs"]] == [run.data_digest])
    assert manifest["feature_sets"][0]["digest"] == features.digest
    assert verify_bytes(bytes.fromhex(digest(body)), manifest["hub_signature"], manifest["public_key"])
    assert lock.signature.object_digest == lock.manifest_digest
