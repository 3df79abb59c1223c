"""Candidate plans on the same data: exploratory in any case, post hoc after a lock, side by side."""

from __future__ import annotations

import numpy as np
import pytest
from django.urls import reverse
from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.models import HarmonizationRun
from harmonization_app.selectors.comparison import compare_runs, runs_to_compare
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run_execution
from harmonization_app.services.comparison import (
    BEFORE_LOCK,
    Candidate,
    start_comparison,
    variants_of,
    vary,
)
from hub.core.audit.models import AuditEvent
from hub.core.errors import InvalidInput, NotAllowed, NotFound
from hub.core.models import Job
from sites_app.models import Role, Trial
from tests.factories.sites_app import PASSWORD, MembershipFactory, TrialFactory

pytestmark = pytest.mark.django_db


def draft(trial, people, **changes):
    return plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document(**changes))


def two_plans(trial, people):
    other = plan_document(name="mean-only", title="Mean only")
    other["parameters"] = {**other["parameters"], "mean_only": True}
    return [
        draft(trial, people),
        plan_services.save_draft(actor=people.statistician, trial=trial, document=other),
    ]


def carried_out(runs):
    for run in runs:
        run_execution.execute_run(job_context(), run_id=str(run.pk))
        run.refresh_from_db()
    Job.objects.update(state="succeeded")
    return runs


def start(people, features, plans):
    return start_comparison(
        actor=people.statistician, feature_set=features, candidates=[Candidate(plan=plan) for plan in plans]
    )


def test_candidates_run_exploratory_and_are_read_side_by_side(trial, people, features):
    runs = carried_out(start(people, features, two_plans(trial, people)))

    found = compare_runs(runs)

    assert {(run.kind, run.exploratory_reason, run.state) for run in runs} == {
        ("exploratory", BEFORE_LOCK, "succeeded")
    }
    measures = {row.title: row for row in found.measures}
    left = measures["Batch effect left (median partial eta²), after"]
    assert left.held_out is True
    assert [column.diagnostics["held_out"]["held_out_after"] for column in found.columns] == list(left.cells)
    assert not measures["Features with a batch effect in the mean, after (q < 0.05)"].held_out
    assert all(0 <= share <= 1 for share in measures["Effect of age kept"].cells)
    assert len(AuditEvent.objects.filter(action="harmonization_plan.compared")) == 1


def test_the_difference_is_that_of_the_results(trial, people, features):
    runs = carried_out(start(people, features, two_plans(trial, people)))

    (difference,) = compare_runs(runs).differences

    first, second = (_values(run) for run in runs)
    apart = np.abs(first - second) / first.std(axis=0)
    assert (difference.rows, difference.features) == (120, 24)
    assert difference.greatest_sd == pytest.approx(apart.max())
    assert difference.median_sd == pytest.approx(np.median(apart))
    assert difference.greatest_sd > difference.high_sd > difference.median_sd > 0


def _values(run):
    from harmonization_app.offline.tables import read_harmonized
    from hub.core.storage.blobs import get_blob

    return read_harmonized(get_blob(run.data_digest)).values


def test_a_locked_plan_is_still_compared_but_post_hoc_and_never_primary(trial, people, features):
    plans = two_plans(trial, people)
    locked_combat(people.admin)
    plan_services.lock_plan(actor=people.admin, plan=plans[0], password=PASSWORD, meaning="I approve")

    runs = start(people, features, plans)

    assert [run.kind for run in runs] == ["exploratory", "exploratory"]
    assert runs[0].exploratory_reason == (
        f"post hoc: comparison of plans after the plan {plans[0].name} version 1 was locked"
    )


def test_after_data_lock_a_comparison_is_post_hoc(trial, people, features):
    plans = two_plans(trial, people)
    Trial.objects.filter(pk=trial.pk).update(lock_state="locked")

    runs = start(people, features, plans)

    assert {run.exploratory_reason for run in runs} == {
        "post hoc: comparison of plans after the data of the trial were locked"
    }


def test_a_repeat_of_a_compared_run_stays_exploratory(trial, people, features):
    from harmonization_app.services.run import rerun

    plans = two_plans(trial, people)
    runs = carried_out(start(people, features, plans))
    locked_combat(people.admin)
    plan_services.lock_plan(actor=people.admin, plan=plans[0], password=PASSWORD, meaning="I approve")

    again = rerun(actor=people.statistician, run=runs[0])

    assert (again.kind, again.exploratory_reason) == ("exploratory", BEFORE_LOCK)
    assert again.specification == runs[0].specification


@pytest.mark.parametrize("count", [1, 5])
def test_two_to_four_candidates_are_compared(trial, people, features, count):
    plan = draft(trial, people)

    with pytest.raises(InvalidInput, match="Choose 2 to 4 candidates"):
        start(people, features, [plan] * count)

    assert HarmonizationRun.objects.count() == 0


def test_one_bad_candidate_starts_none(trial, people, features):
    candidates = [Candidate(plan=draft(trial, people)), Candidate(document={"schema": "nothing"})]

    with pytest.raises(InvalidInput):
        start_comparison(actor=people.statistician, feature_set=features, candidates=candidates)

    assert HarmonizationRun.objects.count() == 0


def test_only_analysts_compare(trial, people, features):
    plans = two_plans(trial, people)

    with pytest.raises(NotAllowed):
        start_comparison(
            actor=people.auditor, feature_set=features, candidates=[Candidate(plan=plan) for plan in plans]
        )


def test_a_refused_candidate_stands_beside_the_others(trial, people, features):
    confounded = plan_document(name="confounded", title="Confounded")
    confounded["parameters"] = {
        **confounded["parameters"],
        "covariates": [{"name": "site", "kind": "categorical"}],
    }
    plans = [draft(trial, people), draft(trial, people, **confounded)]
    runs = carried_out(start(people, features, plans))

    found = compare_runs(runs)

    assert [column.run.state for column in found.columns] == ["succeeded", "refused"]
    assert found.columns[1].findings["stop"] >= 1
    assert found.measures[0].cells[1] is None
    assert found.differences == ()


def test_variants_change_one_parameter_and_say_so():
    document = plan_document()
    codes = [variant.code for variant in variants_of(document)]

    changed = vary(document, "mean-only")

    assert codes == ["mean-only", "without-eb", "nonparametric", "no-covariates"]
    assert changed["title"] == f"{document['title']}: mean only"
    assert changed["parameters"] == {**document["parameters"], "mean_only": True}
    with pytest.raises(InvalidInput, match="no variant"):
        vary(changed, "mean-only")
    assert "nonparametric" not in [item.code for item in variants_of({**document, "algorithm": "z-score"})]


def test_runs_on_other_data_or_out_of_sight_are_not_compared(trial, people, features):
    runs = start(people, features, two_plans(trial, people))
    ids = [str(run.pk) for run in runs]
    visible = HarmonizationRun.objects.all()

    assert runs_to_compare(visible, ids[::-1]) == runs[::-1]
    with pytest.raises(NotFound):
        runs_to_compare(visible.none(), ids)
    with pytest.raises(NotFound):
        runs_to_compare(visible, [ids[0], "not-an-id"])
    with pytest.raises(InvalidInput, match="two to 4"):
        runs_to_compare(visible, [ids[0], ids[0]])


def test_comparing_by_page(client, trial, people, features):
    plans = two_plans(trial, people)
    client.force_login(people.statistician)
    form = client.get(reverse("plan-compare", args=[trial.code]))

    started = client.post(
        reverse("plan-compare", args=[trial.code]),
        {"feature_set": str(features.pk), "candidates": [str(plans[0].pk), f"{plans[0].pk}:without-eb"]},
    )
    waiting = client.get(started.url)
    progress = client.get(started.url.replace("compare/", "compare/progress/"))
    carried_out(HarmonizationRun.objects.all())
    done = client.get(started.url)
    ended = client.get(started.url.replace("compare/", "compare/progress/"))

    assert BEFORE_LOCK in form.content.decode()
    assert started.status_code == 302
    assert "hx-trigger" in waiting.content.decode()
    assert "HX-Refresh" not in progress.headers
    assert ended.headers["HX-Refresh"] == "true"
    text = done.content.decode()
    assert "EXPLORATORY COMPARISON" in text
    assert text.index("HELD-OUT evidence") < text.index("IN-SAMPLE")
    assert [name for name, _ in done.context["specifications"]] == ["Empirical Bayes"]
    assert text.count("kind-chip") >= 4


def test_a_faulty_choice_is_refused_in_words(client, trial, people, features):
    client.force_login(people.statistician)
    address = reverse("plan-compare", args=[trial.code])

    assert client.post(address, {"feature_set": "x", "candidates": ["y"]}).status_code == 404
    assert client.post(address, {"feature_set": str(features.pk)}).status_code == 400
    assert client.get(address, {"runs": "x"}).status_code == 400


def test_comparing_by_api(client, trial, people, features):
    plans = two_plans(trial, people)
    client.force_login(people.statistician)

    started = client.post(
        "/api/v1/harmonization-plans/compare/",
        {
            "feature_set": str(features.pk),
            "plans": [str(plans[0].pk)],
            "specifications": [plan_document(name="other", title="Other")],
        },
        content_type="application/json",
    )
    ids = [run["id"] for run in started.json()["runs"]]
    carried_out(HarmonizationRun.objects.all())
    read = client.get("/api/v1/harmonization-plans/compare/", {"runs": ",".join(ids)})

    assert (started.status_code, read.status_code) == (202, 200)
    document = read.json()
    assert (document["exploratory"], document["finished"]) == (True, True)
    assert [run["id"] for run in document["runs"]] == ids
    assert document["differences"][0]["greatest_sd"] == 0.0
    assert len(document["measures"][0]["values"]) == 2
    stranger = MembershipFactory(trial=TrialFactory(), role=Role.STATISTICIAN).user
    client.force_login(stranger)
    assert client.get("/api/v1/harmonization-plans/compare/", {"runs": ",".join(ids)}).status_code == 404
