"""Runs are repeated in a process of their own; frozen models are applied and extended."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.algorithms.verification.crosscheck import CrossCheck
from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.services import (
    application_execution,
    fresh_process,
    frozen_model,
    learnt,
    model_application,
    run_checks,
    run_execution,
    stored_input,
)
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, InvalidInput, NotAllowed, NotFound
from hub.core.models import Job
from hub.core.storage import blobs
from hub.demo.features import as_csv, metadata
from tests.factories.sites_app import PASSWORD


def done(row: HarmonizationRun) -> HarmonizationRun:
    run_execution.execute_run(job_context(), run_id=str(row.pk))
    Job.objects.filter(pk=row.job_id).update(state="succeeded")
    row.refresh_from_db()
    return row


def run_now(people: Any, features: FeatureSet, **what: Any) -> HarmonizationRun:
    return done(run_services.start_run(actor=people.statistician, feature_set=features, **what))


def locked_plan(trial: Any, people: Any) -> Any:
    locked_combat(people.admin)
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    return plan_services.lock_plan(actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve")


def table_of(trial: Any, people: Any, name: str, lines: list[str]) -> FeatureSet:
    """Import lines of the demonstration's table as a feature set of their own."""
    return feature_services.import_feature_set(
        actor=people.statistician,
        trial=trial,
        name=name,
        content="\n".join([as_csv().splitlines()[0], *lines, ""]).encode(),
        metadata=metadata(),
    )


def test_a_rerun_proves_equality(trial, people, features):
    run = run_now(people, features, specification=plan_document())

    again = run_services.rerun(actor=people.statistician, run=run)
    run_execution.execute_run(job_context(), run_id=str(again.pk))

    again.refresh_from_db()
    equality = again.summary["equality"]
    assert (equality["of"], equality["bitwise"], equality["iterations_equal"]) == (str(run.pk), True, True)
    assert equality["process"] != equality["worker"] == os.getpid()
    assert equality["environment_equal"] is True
    assert again.data_digest != run.data_digest
    assert again.input_digest == run.input_digest


def test_a_rerun_of_a_damaged_table_is_refused(trial, people, features):
    run = run_now(people, features, specification=plan_document())
    path = blobs.root("blobs") / features.data_digest[:2] / features.data_digest
    content = bytearray(path.read_bytes())
    place = content.index(b"2.", len(content) // 2)
    content[place] = ord("3")
    path.write_bytes(bytes(content))

    again = run_services.rerun(actor=people.statistician, run=run)
    with pytest.raises(NotFound, match="damaged"):
        run_execution.execute_run(job_context(), run_id=str(again.pk))


def test_a_rerun_of_another_input_is_refused(trial, people, features, monkeypatch):
    run = run_now(people, features, specification=plan_document())
    prepare = stored_input.prepare

    def otherwise(parsed, feature_set, former=None):
        given = prepare(parsed, feature_set, former)
        values = given.dataset.values.copy()
        values[0, 0] = np.nextafter(values[0, 0], np.inf)
        return replace(given, dataset=given.dataset.with_values(values))

    monkeypatch.setattr(stored_input, "prepare", otherwise)
    again = run_services.rerun(actor=people.statistician, run=run)
    with pytest.raises(run_checks.StoredInputDiffers, match="another input"):
        run_execution.execute_run(job_context(), run_id=str(again.pk))


def test_a_process_that_fails_says_why(trial, people, features, monkeypatch):
    run = run_now(people, features, specification=plan_document())
    again = run_services.rerun(actor=people.statistician, run=run)
    monkeypatch.setattr(fresh_process, "process_environment", lambda given: {"PYTHONHOME": "/nowhere"})

    with pytest.raises(fresh_process.ComputationFailed, match="status 1"):
        run_execution.execute_run(job_context(), run_id=str(again.pk))

    assert list(blobs.root(fresh_process.AREA).iterdir()) == []


def rows_of(*batches: str) -> list[str]:
    """Return the demonstration's lines of these batches."""
    header, *lines = as_csv().splitlines()
    place = header.split(",").index("batch")
    return [line for line in lines if line.split(",")[place] in batches]


def batches_of(features: FeatureSet) -> list[str]:
    return sorted({row["batch"] for row in features.rows})


def values_by_row(run: HarmonizationRun) -> dict[str, list[str]]:
    """Return the harmonized cells of each row of a run."""
    rows = csv.reader(io.StringIO(blobs.get_blob(run.data_digest).decode()))
    next(rows)
    return {f"{row[0]}|{row[1]}": row[5:] for row in rows}


@pytest.fixture
def some_batches(trial, people):
    """All batches but the last, which stays for later."""
    *first, last = batches_of(_whole(trial, people))
    return table_of(trial, people, "First sites", rows_of(*first)), last


def _whole(trial, people):
    return table_of(trial, people, "All sites", as_csv().splitlines()[1:])


def test_the_frozen_model_gives_an_interim_look_the_same_values(trial, people, features):
    fitted = run_now(people, features, specification=plan_document())
    new = table_of(trial, people, "Interim", rows_of(batches_of(features)[0])[:3])

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    assert (applied.state, applied.reason) == ("succeeded", "")
    assert (applied.kind, applied.mode, applied.model_of_id) == ("exploratory", "apply", fitted.pk)
    assert applied.exploratory_reason == "the model is that of an exploratory run"
    before = values_by_row(fitted)
    assert {key: before[key] for key in values_by_row(applied)} == values_by_row(applied)
    assert len(values_by_row(applied)) == 3
    assert applied.summary["application"]["former_parameters_unchanged"] is True
    assert applied.summary["application"]["model_digest"] == fitted.model_digest
    check = applied.summary["cross_check"]
    assert (check["passed"], check["iterations_equal"], check["scope"]) == (True, True, "")
    assert 0 <= check["max_difference_sd"] <= check["tolerance_sd"] == 1e-9
    assert check["features_checked"] == check["features"] == applied.summary["features"] > 0


@pytest.mark.parametrize("tail", ["", "report/", "data/"])
def test_pages_and_files_of_a_run_with_a_frozen_model_answer(trial, people, features, client, tail):
    fitted = run_now(people, features, specification=plan_document())
    new = table_of(trial, people, "Interim", rows_of(batches_of(features)[0])[:3])
    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))
    client.force_login(people.statistician)

    assert client.get(f"/t/{trial.code}/runs/{applied.pk}/{tail}").status_code == 200


def test_a_primary_model_gives_a_primary_run_under_the_plan_in_force(trial, people, features):
    plan = locked_plan(trial, people)
    fitted = run_now(people, features, plan=plan)
    new = table_of(trial, people, "Interim", rows_of(batches_of(features)[0])[:3])

    first = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))
    draft = plan_services.amend_plan(actor=people.statistician, plan=plan, reason="One more site")
    plan_services.lock_plan(actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve")
    later = model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new)

    assert (first.kind, first.exploratory_reason) == ("primary", "")
    assert (later.kind, later.exploratory_reason) == ("exploratory", "the plan is superseded, not locked")


def test_a_primary_correction_that_a_second_computation_contradicts_fails(
    trial, people, features, monkeypatch
):
    fitted = run_now(people, features, plan=locked_plan(trial, people))
    new = table_of(trial, people, "Interim", rows_of(batches_of(features)[0])[:3])
    monkeypatch.setattr(
        run_checks,
        "cross_check_applied",
        lambda *_: CrossCheck(0.25, 1e-9, iterations_equal=True, passed=False),
    )

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    assert (applied.kind, applied.state) == ("primary", "failed")
    assert "differs by 0.25 feature SD; 1e-09 is allowed" in applied.reason
    assert (applied.data_digest, applied.model_digest) == ("", "")
    assert applied.summary["cross_check"]["max_difference_sd"] == 0.25


def test_a_model_that_was_tampered_with_is_found_by_the_second_computation(
    trial, people, features, monkeypatch
):
    fitted = run_now(people, features, plan=locked_plan(trial, people))
    new = table_of(trial, people, "Interim", rows_of(batches_of(features)[0])[:3])
    frozen = frozen_model.models_of(fitted)
    moved = {name: array.copy() for name, array in frozen["main"].arrays.items()}
    moved["gamma_star"] += 1e-6
    monkeypatch.setattr(
        application_execution, "models_of", lambda _: {"main": replace(frozen["main"], arrays=moved)}
    )

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    assert applied.state == "failed"
    assert 1e-8 < applied.summary["cross_check"]["max_difference_sd"] < 1e-5


def test_scans_of_the_model_that_cannot_be_read_again_leave_a_reason_and_a_warning(
    trial, people, features, monkeypatch
):
    fitted = run_now(people, features, specification=plan_document())
    new = table_of(trial, people, "Interim", rows_of(batches_of(features)[0])[:3])
    monkeypatch.setattr(learnt, "stored_preparation", unreadable)

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    why = "The scans that the model was estimated on could not be read again. The file is damaged."
    assert applied.state == "succeeded"
    assert applied.summary["cross_check"] == {"passed": None, "reason": why}
    flagged = next(item for item in applied.gate if item["code"] == "cross_check_not_computed")
    assert (flagged["severity"], flagged["message"].endswith(why)) == ("warn", True)


def unreadable(*_):
    raise NotFound("The file is damaged.")


def test_an_unknown_batch_is_refused_with_the_way_that_leads_on(trial, people, some_batches):
    first, last = some_batches
    fitted = run_now(people, first, specification=plan_document())
    new = table_of(trial, people, "New site", rows_of(last))

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    assert applied.state == "refused"
    assert "add-batch" in applied.reason
    finding = next(item for item in applied.gate if item["code"] == "unknown_batch")
    assert finding["batches"] == [last]
    assert applied.data_digest == ""


def test_a_covariate_out_of_range_is_flagged(trial, people, features):
    fitted = run_now(people, features, specification=plan_document())
    line = rows_of(batches_of(features)[0])[0].split(",")
    line[as_csv().splitlines()[0].split(",").index("age")] = "99"
    new = table_of(trial, people, "Old", [",".join(line)])

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    key = f"{line[0]}|{line[1]}"
    assert applied.state == "succeeded"
    assert applied.summary["application"]["out_of_range"] == {"age": [key]}
    assert any(item["code"] == "covariate_out_of_range" and item["rows"] == [key] for item in applied.gate)


def test_new_scans_outside_the_plausible_ranges_are_refused(trial, people, features):
    place = as_csv().splitlines()[0].split(",").index("thickness_precuneus_left")
    document = plan_document(plausible_ranges={"thickness_precuneus_left": [0, 10]})
    fitted = run_now(people, features, specification=document)
    line = rows_of(batches_of(features)[0])[0].split(",")
    line[place] = "2500"
    new = table_of(trial, people, "Micrometres", [",".join(line)])

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=new))

    assert (fitted.state, applied.state) == ("succeeded", "refused")
    assert f"{line[0]}|{line[1]}, thickness_precuneus_left: 2500 mm" in applied.reason


def test_a_batch_is_added_and_the_former_parameters_stay_bit_for_bit(trial, people, some_batches):
    first, last = some_batches
    fitted = run_now(people, first, specification=plan_document())
    whole = _whole(trial, people)

    added = done(
        model_application.add_batch(
            actor=people.statistician, run=fitted, feature_set=whole, batch=last, reason="Site 5 joined"
        )
    )

    assert (added.state, added.reason, added.mode) == ("succeeded", "", "add_batch")
    old = frozen_model.models_of(fitted)["main"]
    new = frozen_model.models_of(added)["main"]
    assert new.batches == (*old.batches, last)
    for name in ("gamma_star", "delta_star"):
        assert new.arrays[name][: len(old.batches)].tobytes() == old.arrays[name].tobytes()
    before = values_by_row(fitted)
    assert {key: cells for key, cells in values_by_row(added).items() if key in before} == before
    started = AuditEvent.objects.get(action="harmonization_run.started", object_id=str(added.pk))
    assert "Site 5 joined" in started.payload
    later = table_of(trial, people, "Later", rows_of(last)[:2])
    again = done(model_application.apply_model(actor=people.statistician, run=added, feature_set=later))
    assert again.state == "succeeded"
    assert [run.summary["cross_check"]["passed"] for run in (added, again)] == [True, True]
    assert [run.summary["cross_check"]["iterations_equal"] for run in (added, again)] == [True, True]


def test_a_batch_added_pairwise_is_computed_a_second_time_with_the_scans_of_the_reference(
    trial, people, some_batches
):
    first, last = some_batches
    reference = batches_of(first)[0]
    given = plan_document()["parameters"]
    document = plan_document(
        algorithm="pairwise", parameters={**given, "reference_batch": reference}, sensitivity=[]
    )
    fitted = run_now(people, first, specification=document)
    step = {"actor": people.statistician, "run": fitted, "batch": last, "reason": "Site 5 joined"}
    alone = table_of(trial, people, "New site", rows_of(last))
    both = table_of(trial, people, "New site and reference", rows_of(reference, last))

    refused = done(model_application.add_batch(feature_set=alone, **step))
    added = done(model_application.add_batch(feature_set=both, **step))

    assert refused.state == "refused"
    assert "Give those along" in refused.reason
    assert (added.state, added.reason) == ("succeeded", "")
    check = added.summary["cross_check"]
    assert (check["passed"], check["iterations_equal"]) == (True, True)
    assert check["max_difference_sd"] <= check["tolerance_sd"]


def test_a_run_with_a_frozen_model_is_repeated_in_a_fresh_process(trial, people, some_batches):
    first, last = some_batches
    fitted = run_now(people, first, specification=plan_document())
    added = done(
        model_application.add_batch(
            actor=people.statistician,
            run=fitted,
            feature_set=_whole(trial, people),
            batch=last,
            reason="Site 5 joined",
        )
    )

    again = done(run_services.rerun(actor=people.statistician, run=added))

    assert (again.mode, again.model_of_id, again.added_batch) == ("add_batch", fitted.pk, last)
    assert again.summary["equality"]["bitwise"] is True
    assert again.summary["equality"]["process"] != os.getpid()


def test_a_changed_parameter_of_a_frozen_model_stores_nothing(trial, people, some_batches):
    fitted = run_now(people, some_batches[0], specification=plan_document())
    model = frozen_model.models_of(fitted)["main"]
    moved = {name: array.copy() for name, array in model.arrays.items()}
    moved["gamma_star"][0, 0] = np.nextafter(moved["gamma_star"][0, 0], np.inf)

    with pytest.raises(Conflict, match="changed"):
        application_execution.require_kept(model, replace(model, arrays=moved))


def test_faults_of_frozen_models_are_named(trial, people, features):
    queued = run_services.start_run(
        actor=people.statistician, feature_set=features, specification=plan_document()
    )
    given = {"actor": people.statistician, "feature_set": features}

    with pytest.raises(Conflict, match="only a succeeded run has a model"):
        model_application.apply_model(run=queued, **given)
    run = done(queued)
    with pytest.raises(InvalidInput, match="reason"):
        model_application.add_batch(run=run, batch="B", reason=" ", **given)
    with pytest.raises(InvalidInput, match="batch"):
        model_application.add_batch(run=run, batch="", reason="A site joined", **given)
    with pytest.raises(NotAllowed):
        model_application.apply_model(run=run, actor=people.auditor, feature_set=features)
    known = model_application.add_batch(
        run=run, batch=batches_of(features)[0], reason="A site joined", **given
    )
    assert done(known).state == "refused"
