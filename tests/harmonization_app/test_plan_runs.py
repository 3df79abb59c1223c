"""Runs carry out what their plan says: rows, calibration, sensitivity, memory, proof, cancellation."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from harmonization_cases import job_context, locked_combat, plan_document
from image_cases import epochs_of_a_scanner, image

from harmonization_app.algorithms.chain import calibrate_then
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.algorithms.verification.crosscheck import CrossCheck
from harmonization_app.models import AlgorithmVersion, HarmonizationRun
from harmonization_app.plan_document import parse_plan
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import model_application, run_checks, run_execution
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services.preparation import prepare
from harmonization_app.services.run_memory import RunTooLarge
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, InvalidInput
from hub.core.jobs.services import JobCancelled
from hub.core.models import Job
from hub.core.storage.blobs import get_blob
from hub.demo.features import as_csv, metadata
from hub.demo.trial import harmonization_plan_document
from tests.factories.locked import lock_algorithm
from tests.factories.sites_app import PASSWORD

FEATURE = "thickness_precuneus_left"


def done(row):
    run_execution.execute_run(job_context(), run_id=str(row.pk))
    Job.objects.filter(pk=row.job_id).update(state="succeeded")
    row.refresh_from_db()
    return row


def started(people, features, **what):
    return run_services.start_run(actor=people.statistician, feature_set=features, **what)


def run_now(people, features, **what):
    return done(started(people, features, **what))


def locked(people, algorithm):
    version = next(row for row in algorithm_services.register_algorithms() if row.algorithm == algorithm)
    return lock_algorithm(version, people.admin)


def draft(trial, people, document):
    return plan_services.save_draft(actor=people.statistician, trial=trial, document=document)


def lock(people, plan):
    return plan_services.lock_plan(
        actor=people.admin, plan=plan, password=PASSWORD, meaning="I approve this plan"
    )


def primary_plan(trial, people, **changes):
    locked_combat(people.admin)
    return lock(people, draft(trial, people, plan_document(**changes)))


def test_rows_left_out_for_their_images_are_not_in_the_result_and_are_told(trial, people, features) -> None:
    row = features.rows[0]["row"]
    image(trial, row, qc_outcome="fail")

    run = run_now(people, features, specification=plan_document(sensitivity=[]))

    table = list(csv.DictReader(io.StringIO(get_blob(run.data_digest).decode())))
    assert run.state == "succeeded"
    assert len(table) == len(features.rows) - 1
    assert row not in {f"{item['subject']}|{item['visit']}" for item in table}
    assert run.row_decisions["excluded"] == {row: "failed QC: t1"}
    assert run.summary["excluded"] == {row: "failed QC: t1"}
    assert "qc_failed_rows_excluded" in {finding["code"] for finding in run.gate}


def test_a_silent_plan_is_refused_and_the_reason_says_what_to_write(trial, people, features) -> None:
    image(trial, features.rows[0]["row"], protocol_outcome="deviant")
    document = plan_document(sensitivity=[])
    del document["image_rows"]

    run = run_now(people, features, specification=document)

    assert run.state == "refused"
    assert '"image_rows": {"deviant": "exclude"}' in run.reason
    assert run.data_digest == ""


def dated(trial, people):
    """The demonstration's table with the day of each scan."""
    lines = as_csv().splitlines()
    first = lines[1].lower().startswith("unit")
    days = ["scan_day", *(["" for _ in range(first)]), *["2026-05-04"] * (len(lines) - 1 - first)]
    content = "\n".join(f"{line},{day}" for line, day in zip(lines, days, strict=True))
    return feature_services.import_feature_set(
        actor=people.statistician, trial=trial, name="Dated", content=content.encode(), metadata=metadata()
    )


def calibration(batches):
    measurements = [
        {
            "batch": batch,
            "first_day": "2026-01-01",
            "last_day": "2026-12-31",
            "feature": FEATURE,
            "known": [2.0, 3.0],
            "measured": [2.0 + 0.01 * number, 3.0 + 0.02 * number],
        }
        for number, batch in enumerate(sorted(batches))
    ]
    return {"parameters": {"time": "scan_day", "options": {"measurements": measurements}}}


def test_a_calibrated_run_keeps_both_models_and_computes_both_again(trial, people) -> None:
    features = dated(trial, people)
    batches = {item["batch"] for item in features.rows}
    document = plan_document(sensitivity=[], calibration=calibration(batches))

    run = run_now(people, features, specification=document)

    assert run.state == "succeeded", run.reason
    with zipfile.ZipFile(io.BytesIO(get_blob(run.model_digest))) as archive:
        assert {"model.json", "model.npz", "calibration/model.json", "calibration/model.npz"} <= set(
            archive.namelist()
        )
        assert json.loads(archive.read("calibration/model.json"))["algorithm"] == "phantom-calibration"
        assert json.loads(archive.read("model.json"))["algorithm"] == "combat"
    check = run.summary["cross_check"]
    assert (check["passed"], check["calibration"]["passed"]) == (True, True)
    assert len(run.summary["calibration"]["lines"]) == len(batches)


def test_both_steps_are_computed_again_where_a_calibrated_model_corrects_scans(trial, people) -> None:
    features = dated(trial, people)
    batches = {item["batch"] for item in features.rows}
    document = plan_document(sensitivity=[], calibration=calibration(batches))
    fitted = run_now(people, features, specification=document)

    applied = done(model_application.apply_model(actor=people.statistician, run=fitted, feature_set=features))

    assert applied.state == "succeeded", applied.reason
    check = applied.summary["cross_check"]
    assert (check["passed"], check["calibration"]["passed"]) == (True, True)
    assert check["scope"] == run_checks.CALIBRATED


def test_a_calibrated_run_is_the_calibration_and_then_the_method(trial, people) -> None:
    features = dated(trial, people)
    document = plan_document(
        sensitivity=[], calibration=calibration({item["batch"] for item in features.rows})
    )
    parsed = parse_plan(document)
    dataset = prepare(parsed, features).dataset

    run = run_now(people, features, specification=document)

    by_hand = calibrate_then(parsed.calibration, get_algorithm("combat"), dataset, parsed.specification)
    assert run.summary["values_digest"] == run_execution.values_digest(by_hand.values)
    plain = get_algorithm("combat").harmonize(dataset, parsed.specification)
    assert np.abs(plain.values - by_hand.values).max() > 1e-3


def test_a_calibration_by_scanner_covers_a_batch_that_was_split(trial, people) -> None:
    features = dated(trial, people)
    batch = features.rows[0]["batch"]
    rows = [item["row"] for item in features.rows if item["batch"] == batch]
    first, second = epochs_of_a_scanner(trial, "A", "B")
    for index, row in enumerate(rows):
        image(trial, row, epoch=first if index < len(rows) // 2 else second)
    document = plan_document(
        sensitivity=[], calibration=calibration({item["batch"] for item in features.rows})
    )

    run = run_now(people, features, specification=document)

    assert run.state == "succeeded", run.reason
    assert set(run.row_decisions["batches"].values()) == {f"{batch} / software A", f"{batch} / software B"}


def test_analyses_of_the_plan_run_with_it(people, features) -> None:
    run = run_now(people, features, specification=harmonization_plan_document())

    analyses = run_services.load_diagnostics(run)["sensitivity"]
    assert [item["name"] for item in analyses] == ["unharmonized", "leave_one_batch_out", "longcombat"]
    assert [item["state"] for item in run.summary["sensitivity"]] == ["done", "done", "done"]
    assert analyses[2]["rows"] == len(features.rows)
    assert analyses[2]["against_main"]["values"]["median_sd"] > 0


def test_an_analysis_that_its_own_gate_refuses_says_so_before_and_after(trial, people, features) -> None:
    refused = {
        "kind": "algorithm",
        "algorithm": "combat",
        "parameters": {"eb": False, "batch_size": {"without_eb_stop_below": 500}},
    }
    document = plan_document(sensitivity=[refused])

    found = plan_services.check_document(
        actor=people.statistician, trial=trial, document=document, feature_set=features
    )
    run = run_now(people, features, specification=document)

    warning = next(finding for finding in found if finding.code == "sensitivity_refused")
    assert warning.severity == "warn"
    assert "fewer than 500 scans" in warning.message
    assert run.state == "succeeded"
    assert run.summary["sensitivity"][0]["state"] == "refused"
    assert "fewer than 500 scans" in run.summary["sensitivity"][0]["reason"]


def test_a_plan_with_an_unlocked_algorithm_beside_it_cannot_be_locked(trial, people) -> None:
    locked(people, "combat")
    plan = draft(trial, people, harmonization_plan_document())

    with pytest.raises(Conflict, match="longcombat has no locked version"):
        lock(people, plan)

    plan.refresh_from_db()
    assert (plan.state, plan.companions) == ("draft", {})


def test_a_locked_plan_binds_the_algorithms_beside_it(trial, people, features) -> None:
    locked(people, "combat")
    version = locked(people, "longcombat")
    plan = lock(people, draft(trial, people, harmonization_plan_document()))

    run = run_now(people, features, plan=plan)

    assert plan.companions == {"longcombat": version.code_digest}
    assert plan_services.signed_content(plan)["companions"] == plan.companions
    assert plan.signature.object_digest == plan.digest
    assert (run.kind, run.state) == ("primary", "succeeded")


def test_a_companion_that_was_retired_makes_a_run_exploratory(trial, people, features) -> None:
    locked(people, "combat")
    version = locked(people, "longcombat")
    plan = lock(people, draft(trial, people, harmonization_plan_document()))
    algorithm_services.retire_algorithm(actor=people.admin, version=version, reason="superseded")

    run = started(people, features, plan=plan)

    assert run.kind == "exploratory"
    assert "longcombat" in run.exploratory_reason


def test_an_exploratory_algorithm_cannot_be_locked_in_a_plan(trial, people) -> None:
    parameters = {"batch_variables": ["scanner", "site"], "covariates": []}
    plan = draft(trial, people, plan_document(algorithm="nested-search", parameters=parameters))

    with pytest.raises(Conflict, match="exploratory"):
        lock(people, plan)


def test_an_exploratory_algorithm_beside_the_main_one_cannot_be_locked_either(trial, people) -> None:
    locked_combat(people.admin)
    beside = {
        "kind": "algorithm",
        "algorithm": "nested-search",
        "parameters": {"batch_variables": ["scanner", "site"]},
    }
    plan = draft(trial, people, plan_document(sensitivity=[beside]))

    with pytest.raises(Conflict, match="exploratory"):
        lock(people, plan)


def test_the_memory_of_a_run_is_stated_before_it_starts(people, features, settings) -> None:
    run = started(people, features, specification=plan_document())

    table_bytes, array_bytes = 8 * 120 * 24, 8 * 24 * (14 * 6 + 16 * 4 + 105)
    assert run.estimate["bytes"] == (600 << 20) + 18 * table_bytes + array_bytes
    assert run.estimate["limit_bytes"] == settings.HUB_RUN_MEMORY_LIMIT_MB << 20
    assert "120 scans of 24 features" in run.estimate["how"]


def test_a_run_over_the_limit_is_refused_before_anything_is_enqueued(
    trial, people, features, settings
) -> None:
    settings.HUB_RUN_MEMORY_LIMIT_MB = 300

    with pytest.raises(RunTooLarge, match="at most 600 MB"):
        started(people, features, specification=plan_document())

    found = plan_services.check_document(
        actor=people.statistician, trial=trial, document=plan_document(), feature_set=features
    )
    assert HarmonizationRun.objects.count() == 0
    assert Job.objects.count() == 0
    assert [(finding.code, finding.severity) for finding in found] == [("memory", "stop")]


def differing(*_):
    return CrossCheck(0.25, 1e-9, True, False)


def test_a_primary_run_that_a_second_computation_contradicts_fails(
    trial, people, features, monkeypatch
) -> None:
    plan = primary_plan(trial, people, sensitivity=[])
    monkeypatch.setattr(run_checks, "cross_check", differing)

    run = run_now(people, features, plan=plan)

    assert (run.kind, run.state) == ("primary", "failed")
    assert "differs by 0.25 feature SD; 1e-09 is allowed" in run.reason
    assert (run.data_digest, run.model_digest, run.diagnostics_digest) == ("", "", "")
    assert run.summary["cross_check"]["max_difference_sd"] == 0.25


def test_an_exploratory_run_that_a_second_computation_contradicts_is_flagged(
    people, features, monkeypatch
) -> None:
    monkeypatch.setattr(run_checks, "cross_check", differing)

    run = run_now(people, features, specification=plan_document(sensitivity=[]))

    assert run.state == "succeeded"
    assert ("cross_check_differs", "warn") in {(item["code"], item["severity"]) for item in run.gate}


def test_a_result_that_cannot_be_computed_again_says_why(trial, people, features, monkeypatch) -> None:
    def impossible(*_):
        raise InvalidInput("It takes too long.")

    plan = primary_plan(trial, people, sensitivity=[])
    monkeypatch.setattr(run_checks, "cross_check", impossible)

    run = run_now(people, features, plan=plan)

    flagged = next(item for item in run.gate if item["code"] == "cross_check_not_computed")
    assert run.state == "succeeded"
    assert run.summary["cross_check"] == {"passed": None, "reason": "It takes too long."}
    assert "nothing confirms it: It takes too long." in flagged["message"]


def test_a_fault_of_the_second_computation_is_not_hidden(people, features, monkeypatch) -> None:
    def broken(*_):
        raise Conflict("The package differs.")

    monkeypatch.setattr(run_checks, "cross_check", broken)

    with pytest.raises(Conflict, match="The package differs"):
        run_now(people, features, specification=plan_document(sensitivity=[]))


@pytest.mark.parametrize("stage", ["reading", "checking", "estimating", "second", "diagnosing", "leave one"])
def test_a_run_stops_at_the_stage_at_which_it_was_cancelled(people, features, monkeypatch, stage) -> None:
    row = started(people, features, specification=plan_document())
    context = job_context()
    own = context.progress

    def progress(share, text=""):
        if stage in text:
            Job.objects.filter(pk=context.job_id).update(cancel_requested=True)
        own(share, text)

    monkeypatch.setattr(context, "progress", progress)

    with pytest.raises(JobCancelled):
        run_execution.execute_run(context, run_id=str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.data_digest) == ("cancelled", "")


def test_the_stages_of_a_run_are_shown_in_order(people, features, monkeypatch) -> None:
    row = started(people, features, specification=plan_document())
    context = job_context()
    seen = []
    monkeypatch.setattr(context, "progress", lambda share, text="": seen.append((share, text)))

    run_execution.execute_run(context, run_id=str(row.pk))

    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert [text for _, text in seen] == [
        "reading the features and what is known of their images",
        "checking the assumptions",
        "estimating the batch effects",
        "computing the result a second time",
        "diagnosing before and after",
        "sensitivity: unharmonized",
        "sensitivity: leave one batch out",
        "storing the results",
    ]


def test_locking_and_running_record_whether_the_plan_is_blinded(trial, people, features) -> None:
    plan = primary_plan(
        trial, people, sensitivity=[], blinded=False, rationale="Open label: the arm is known to all."
    )
    run = started(people, features, plan=plan)

    events = AuditEvent.objects.filter(object_id__in=[str(plan.pk), str(run.pk)])
    said = {event.action: json.loads(event.payload)["new"] for event in events}
    assert said["harmonization_plan.locked"]["blinded"] is False
    assert said["harmonization_run.started"]["blinded"] is False


def test_a_version_beside_the_plan_is_held_to_its_environment(trial, people, features, monkeypatch) -> None:
    locked(people, "combat")
    version = locked(people, "longcombat")
    plan = lock(people, draft(trial, people, harmonization_plan_document()))
    row = started(people, features, plan=plan)
    changed = AlgorithmVersion.objects.get(pk=version.pk)
    changed.environment_digest = "f" * 64
    monkeypatch.setattr(run_execution, "locked_version", lambda name: changed)

    with pytest.raises(algorithm_services.DigestDiffers, match="longcombat"):
        run_execution.execute_run(job_context(), run_id=str(row.pk))
