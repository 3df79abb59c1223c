"""A run begins and ends once, is cancelled in any state that is not final, and is under way only once if primary."""

from __future__ import annotations

import json

import pytest
from django.db import IntegrityError, transaction
from harmonization_cases import job_context, lock_plan, locked_trial, plan_document

from harmonization_app.models import HarmonizationRun, RunState
from harmonization_app.models.plan import RUN_TRANSITIONS
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from harmonization_app.services.run_state import begin_run, finish_run
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, NotAllowed
from hub.core.models import Job
from tests.factories.harmonization_app import RunFactory
from tests.factories.sites_app import MembershipFactory

pytestmark = pytest.mark.django_db

FINAL = [state for state, following in RUN_TRANSITIONS.items() if not following]


def events_of(run):
    rows = AuditEvent.objects.filter(object_id=str(run.pk)).order_by("sequence")
    return [(row.action.removeprefix("harmonization_run."), json.loads(row.payload)) for row in rows]


def analyst_of(run):
    return MembershipFactory(trial=run.trial, role="statistician").user


def test_every_change_of_state_is_recorded_with_the_state_before():
    run = RunFactory()

    assert begin_run(str(run.pk))
    assert begin_run(str(run.pk))
    finish_run(run, RunState.FAILED, "why", {})

    said = [
        (action, payload["old"].get("state"), payload["new"]["state"]) for action, payload in events_of(run)
    ]
    assert said == [
        ("running", "queued", "running"),
        ("running", "running", "running"),
        ("failed", "running", "failed"),
    ]


@pytest.mark.parametrize("before", RUN_TRANSITIONS)
@pytest.mark.parametrize("after", sorted(set(RunState.values) - {"queued", "running"}))
def test_every_state_by_every_end(before, after):
    run = RunFactory(state=before)

    if RUN_TRANSITIONS[before] and after not in RUN_TRANSITIONS[before]:
        with pytest.raises(Conflict, match=f"is {before}; it cannot become {after}"):
            finish_run(run, after, "why", {})
    else:
        finish_run(run, after, "why", {})

    run.refresh_from_db()
    assert run.state == (after if after in RUN_TRANSITIONS[before] else before)
    assert len(events_of(run)) == (after in RUN_TRANSITIONS[before])


@pytest.mark.parametrize("state", FINAL)
def test_what_is_final_does_not_begin_end_or_get_cancelled(state):
    run = RunFactory(state=state, reason="as it was")

    assert not begin_run(str(run.pk))
    finish_run(run, RunState.FAILED, "late", {})
    with pytest.raises(Conflict, match=f"This run is {state} already"):
        run_services.cancel_run(actor=analyst_of(run), run=run)

    run.refresh_from_db()
    assert (run.state, run.reason) == (state, "as it was")
    assert events_of(run) == []


def test_a_run_that_ended_a_moment_ago_is_not_cancelled():
    run = RunFactory()
    stale = HarmonizationRun.objects.get(pk=run.pk)
    finish_run(run, RunState.FAILED, "why", {})

    with pytest.raises(Conflict, match="failed already"):
        run_services.cancel_run(actor=analyst_of(run), run=stale)

    assert [action for action, _ in events_of(run)] == ["failed"]


@pytest.mark.parametrize(("job_state", "expected"), [("queued", "cancelled"), ("running", "running")])
def test_cancelling_ends_a_waiting_job_and_asks_a_running_one_to_stop(job_state, expected):
    run = RunFactory()
    job = Job.objects.create(
        kind=run_services.JOB,
        queue="harmonize",
        key=str(run.pk),
        state=job_state,
        arguments={"run_id": str(run.pk)},
    )

    run = run_services.cancel_run(actor=analyst_of(run), run=run)

    job.refresh_from_db()
    assert (run.state, run.reason) == ("cancelled", "Cancelled on request.")
    assert (job.state, job.cancel_requested) == (expected, job_state == "running")
    assert [action for action, _ in events_of(run)] == ["cancelled", "cancel_requested"]


def test_a_run_whose_job_is_over_can_be_cancelled():
    run = RunFactory(state=RunState.RUNNING)
    Job.objects.create(kind=run_services.JOB, queue="harmonize", key=str(run.pk), state="failed")

    assert run_services.cancel_run(actor=analyst_of(run), run=run).state == "cancelled"


def test_an_auditor_cancels_nothing():
    run = RunFactory()
    auditor = MembershipFactory(trial=run.trial, role="auditor").user

    with pytest.raises(NotAllowed):
        run_services.cancel_run(actor=auditor, run=run)

    run.refresh_from_db()
    assert run.state == "queued"


def test_the_same_primary_run_is_under_way_only_once(trial, people, features):
    plan = lock_plan(trial, people)
    first = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)

    with pytest.raises(Conflict, match=f"under way already: run {first.pk}, queued"):
        run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    with pytest.raises(IntegrityError, match="under_way_only_once"), transaction.atomic():
        HarmonizationRun.objects.create(
            trial=trial,
            plan=plan,
            plan_digest=plan.digest,
            algorithm_version=plan.algorithm_version,
            feature_set=features,
            specification=plan.document,
            kind="primary",
            created_by=people.statistician,
        )

    run_services.cancel_run(actor=people.statistician, run=first)
    again = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    assert (again.kind, HarmonizationRun.objects.count()) == ("primary", 2)


def test_exploratory_runs_may_be_under_way_together(people, features):
    for _ in range(2):
        run_services.start_run(actor=people.statistician, feature_set=features, specification=plan_document())

    assert list(HarmonizationRun.objects.values_list("kind", "state")) == [("exploratory", "queued")] * 2


def test_a_draft_that_changed_while_a_run_was_asked_for_is_not_run_as_it_was(trial, people, features):
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    changed = plan_document(title="Another title")
    plan_services.save_draft(actor=people.statistician, trial=trial, document=changed)

    with pytest.raises(Conflict, match="changed a moment ago"):
        run_services.start_run(actor=people.statistician, feature_set=features, plan=draft)

    assert HarmonizationRun.objects.count() == 0


def test_a_primary_run_whose_job_was_lost_ends_with_the_data_lock(trial, people, features):
    plan = lock_plan(trial, people)
    run = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    Job.objects.filter(pk=run.job_id).update(state="cancelled")
    locked_trial(trial, people)

    run_execution.execute_run(job_context(), run_id=str(run.pk))

    run.refresh_from_db()
    assert (run.state, run.kind) == ("failed", "exploratory")
    assert "locked before this run ended" in run.reason
