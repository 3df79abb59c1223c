"""The pages of harmonization and data lock: who opens them, what they show, what their forms do."""

from __future__ import annotations

import json
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils.html import escape
from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.diagnostics.feature_table import FeatureTableInvalid
from harmonization_app.models import DataLock, Export, FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import export as export_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from hub.core.models import Job
from hub.demo.features import as_csv, metadata
from sites_app.models import Role, Subject
from tests.factories.locked import lock_versions
from tests.factories.sites_app import PASSWORD, MembershipFactory, TrialFactory

pytestmark = pytest.mark.django_db
READ_PAGES = (
    "harmonization-home",
    "feature-sets",
    "feature-set-new",
    "plans",
    "plan-new",
    "runs",
    "data-lock",
)


def page(client, person, address, *args, **query):
    client.force_login(person)
    return client.get(reverse(address, args=args), query)


def post(client, person, address, *args, **data):
    client.force_login(person)
    return client.post(reverse(address, args=args), data)


def locked_plan(trial, people):
    locked_combat(people.admin)
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    return plan_services.lock_plan(actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve")


def finished_run(people, features, **what):
    run = run_services.start_run(actor=people.statistician, feature_set=features, **what)
    run_execution.execute_run(job_context(), run_id=str(run.pk))
    Job.objects.update(state="succeeded")
    run.refresh_from_db()
    return run


@pytest.mark.parametrize("name", READ_PAGES)
@pytest.mark.parametrize(
    "role", [Role.STATISTICIAN, Role.TRIAL_ADMINISTRATOR, Role.AUDITOR, Role.SPONSOR, Role.DATA_MANAGER]
)
def test_trial_wide_readers_open_every_page(client, trial, name, role):
    person = MembershipFactory(trial=trial, role=role).user

    assert page(client, person, name, trial.code).status_code == 200


@pytest.mark.parametrize("name", READ_PAGES)
def test_a_coordinator_is_refused_and_a_stranger_finds_nothing(client, trial, people, name):
    stranger = MembershipFactory(trial=TrialFactory(), role=Role.STATISTICIAN).user

    assert page(client, people.coordinator, name, trial.code).status_code == 403
    assert page(client, stranger, name, trial.code).status_code == 404


def test_a_data_manager_of_one_site_is_refused(client, trial):
    person = MembershipFactory(trial=trial, role=Role.DATA_MANAGER, site=trial.sites.first()).user

    answer = page(client, person, "data-lock", trial.code)

    assert answer.status_code == 403
    assert "limited to some of them" in answer.content.decode()


def test_rows_of_another_trial_are_not_found(client, trial, people, features):
    other = TrialFactory()
    stranger = MembershipFactory(trial=other, role=Role.STATISTICIAN).user

    assert page(client, stranger, "feature-set", other.code, features.pk).status_code == 404


def test_the_way_names_the_next_step(client, trial, people, features):
    text = page(client, people.statistician, "harmonization-home", trial.code)

    steps = text.context["steps"]
    assert [(step.title, step.state) for step in steps] == [
        ("Feature set", "done"),
        ("Algorithm version", "next"),
        ("Plan", "later"),
        ("Run", "later"),
        ("Data lock", "later"),
    ]


def test_importing_by_page_stores_the_set(client, trial, people):
    upload = SimpleUploadedFile("features.csv", as_csv().encode(), "text/csv")

    answer = post(
        client,
        people.statistician,
        "feature-set-new",
        trial.code,
        file=upload,
        name="By page",
        metadata=json.dumps(metadata()),
    )

    row = FeatureSet.objects.get()
    assert answer.status_code == 302
    assert (row.name, row.row_count, row.column_count) == ("By page", 120, 24)


def test_a_faulty_csv_names_row_and_column_in_the_fragment(client, trial, people):
    lines = as_csv().splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:-1], "12,5x"])
    client.force_login(people.statistician)

    answer = client.post(
        reverse("feature-set-new", args=[trial.code]),
        {
            "file": SimpleUploadedFile("f.csv", "\n".join(lines).encode()),
            "name": "F",
            "metadata": json.dumps(metadata()),
        },
        headers={"hx-request": "true"},
    )

    assert answer.status_code == FeatureTableInvalid.http_status
    assert "row 2" in answer.content.decode()
    assert "<html" not in answer.content.decode()
    assert FeatureSet.objects.count() == 0


def test_a_feature_set_shows_rows_by_batch_and_a_distribution(client, trial, people, features):
    answer = page(client, people.auditor, "feature-set", trial.code, features.pk, by="batch")

    groups = answer.context["groups"]
    assert (len(groups), sum(group.rows for group in groups)) == (6, 120)
    fragment = page(
        client,
        people.auditor,
        "feature-set-distribution",
        trial.code,
        features.pk,
        feature="volume_hippocampus_left",
    )
    assert fragment.context["unit"] == "mm3"
    assert sum(len(group.values) for group in fragment.context["distribution"]) == 120
    assert "No observed value of nothing" in (
        page(
            client, people.auditor, "feature-set-distribution", trial.code, features.pk, feature="nothing"
        ).content.decode()
    )
    data = page(client, people.auditor, "feature-set-data", trial.code, features.pk)
    assert data.content.startswith(b"subject,visit,")


def test_a_feature_set_shows_covariates_and_how_far_batches_lie_apart(client, trial, people, features):
    answer = page(client, people.auditor, "feature-set", trial.code, features.pk, by="batch")

    assert answer.context["covariates"] == ["age", "sex", "diagnosis"]
    age, sex, _ = answer.context["groups"][0].covariates
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ \([\d.]+ to [\d.]+\)", age)
    assert re.fullmatch(r"F \d+, M \d+", sex)
    profile = answer.context["profile"]
    assert (len(profile.features), len(profile.groups), profile.examined) == (24, 6, 24)
    widths = [max(means) - min(means) for means in profile.means_sd]
    assert widths == sorted(widths, reverse=True)


def test_features_are_suggested_by_a_part_of_their_name(client, trial, people, features):
    address = ("feature-set-features", trial.code, features.pk)

    everything = page(client, people.auditor, *address).json()
    found = page(client, people.auditor, *address, q="hippocampus left").json()

    assert len(everything["features"]) == 24
    assert [item["name"] for item in found["features"]] == ["volume_hippocampus_left"]
    assert found["found"] == 1


def test_a_table_of_many_columns_is_imported_and_shown_by_pages(client, trial, people):
    subjects = list(Subject.objects.filter(trial=trial).values_list("code", flat=True)[:8])
    visit = trial.visit_definitions.first().code
    names = [f"roi_{number:05d}" for number in range(20_000)]
    lines = [",".join(["subject", "visit", "batch", *names])]
    for index, subject in enumerate(subjects):
        values = (f"{(index * 7 + column) % 13}.5" for column in range(len(names)))
        lines.append(",".join([subject, visit, "PQ"[index % 2], *values]))
    described = {"columns": [{"name": name, "unit": "mm"} for name in names], "metadata": ["batch"]}

    answer = post(
        client,
        people.statistician,
        "feature-set-new",
        trial.code,
        file=SimpleUploadedFile("wide.csv", "\n".join(lines).encode()),
        name="Wide",
        metadata=json.dumps(described),
    )
    shown = client.get(answer.url)

    assert answer.status_code == 302
    assert FeatureSet.objects.get(name="Wide").column_count == 20_000
    assert len(shown.content) < 400_000
    assert "data-suggest" in shown.content.decode()
    assert len(page(client, people.statistician, "plan-new", trial.code).content) < 100_000


def test_the_gate_answers_beside_the_editor(client, trial, people, features):
    good = post(
        client,
        people.statistician,
        "plan-gate",
        trial.code,
        document=json.dumps(plan_document()),
        feature_set=str(features.pk),
    )
    confounded = plan_document()
    confounded["parameters"] = {
        **confounded["parameters"],
        "covariates": [{"name": "site", "kind": "categorical"}],
    }
    bad = post(
        client,
        people.statistician,
        "plan-gate",
        trial.code,
        document=json.dumps(confounded),
        feature_set=str(features.pk),
    )
    broken = post(
        client,
        people.statistician,
        "plan-gate",
        trial.code,
        document="{",
        feature_set=str(features.pk),
    )

    assert good.context["passes"] is True
    assert bad.context["passes"] is False
    assert bad.context["groups"][0]["severity"] == "stop"
    assert "line 1, column 2" in broken.content.decode()
    assert HarmonizationPlan.objects.count() == 0


def test_an_auditor_may_not_ask_the_gate(client, trial, people, features):
    answer = post(
        client,
        people.auditor,
        "plan-gate",
        trial.code,
        document=json.dumps(plan_document()),
        feature_set=str(features.pk),
    )

    assert answer.context["problem"]["code"] == "not_allowed"


def test_a_draft_is_discarded_by_page_unless_a_run_was_made_with_it(client, trial, people, features):
    plan = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    tried = plan_services.save_draft(
        actor=people.statistician, trial=trial, document=plan_document(name="tried")
    )
    run_services.start_run(actor=people.statistician, feature_set=features, plan=tried)
    offered = [
        reverse("plan-discard", args=[trial.code, item.pk])
        in page(client, people.statistician, "plan", trial.code, item.pk).content.decode()
        for item in (plan, tried)
    ]

    answers = [
        post(client, people.statistician, "plan-discard", trial.code, item.pk) for item in (plan, tried)
    ]

    assert offered == [True, False]
    assert [answer.status_code for answer in answers] == [302, 409]
    assert list(HarmonizationPlan.objects.all()) == [tried]


def test_a_plan_is_drafted_locked_and_amended_by_page(client, trial, people):
    locked_combat(people.admin)
    drafted = post(client, people.statistician, "plan-new", trial.code, document=json.dumps(plan_document()))
    plan = HarmonizationPlan.objects.get()
    refused = post(
        client, people.admin, "plan-lock", trial.code, plan.pk, password="wrong", meaning="I approve"
    )
    locked = post(
        client, people.admin, "plan-lock", trial.code, plan.pk, password=PASSWORD, meaning="I approve"
    )
    amended = post(client, people.statistician, "plan-amend", trial.code, plan.pk, reason="One more year")

    plan.refresh_from_db()
    assert [drafted.status_code, refused.status_code, locked.status_code, amended.status_code] == [
        302,
        403,
        302,
        302,
    ]
    assert plan.state == "locked"
    assert HarmonizationPlan.objects.filter(version=2, amendment_reason="One more year").exists()
    shown = page(client, people.auditor, "plan", trial.code, plan.pk).content.decode()
    assert plan.signature.printed_name in shown
    assert plan.digest in shown


def test_an_algorithm_version_is_verified_and_locked_by_page(client, trial, people):
    page(client, people.statistician, "algorithms")
    version = next(row for row in algorithm_services.register_algorithms() if row.algorithm == "combat")
    queued = post(client, people.statistician, "algorithm-verify", version.pk)
    assert "waiting for a worker" in page(client, people.auditor, "algorithm", version.pk).content.decode()
    algorithm_services.verify_algorithm(version_id=str(version.pk))
    Job.objects.update(state="succeeded")
    early = post(
        client, people.statistician, "algorithm-lock", version.pk, password=PASSWORD, meaning="I approve"
    )
    signature = {"password": PASSWORD, "meaning": "I approve"}
    first = post(client, people.admin, "algorithm-lock", version.pk, **signature)
    waiting = page(client, people.admin, "algorithm", version.pk).content.decode()
    again = post(client, people.admin, "algorithm-lock", version.pk, **signature)
    offered = page(client, people.second_admin, "algorithm", version.pk).content.decode()
    locked = post(client, people.second_admin, "algorithm-lock", version.pk, **signature)
    shown = page(client, people.auditor, "algorithm", version.pk).content.decode()
    retired = post(client, people.admin, "algorithm-retire", version.pk, reason="Replaced")

    version.refresh_from_db()
    assert [answer.status_code for answer in (queued, early, first, again, locked, retired)] == [
        302,
        403,
        302,
        409,
        302,
        302,
    ]
    assert "You have signed. Another administrator gives the second signature." in waiting
    assert 'name="password"' not in waiting
    assert "Sign and lock" in offered
    assert shown.count("Signed by") == 2
    assert version.state == "retired"


def test_an_algorithm_page_says_what_the_method_does_and_cannot(client, trial, people):
    version = next(row for row in algorithm_services.register_algorithms() if row.algorithm == "z-score")

    answer = page(client, people.auditor, "algorithm", version.pk)

    text = answer.content.decode()
    assert escape(ALGORITHMS["z-score"].limits[0]) in text
    assert "Fortin et al." in text
    rows = {row.name: row for row in answer.context["parameters"]}
    assert rows["batch_size.stop_below"].allowed == "integer ≥ 1"
    assert rows["covariates"].allowed == "list of {name, kind, reference, levels}"
    assert rows["eb"].allowed == "fixed: no"


def test_algorithms_are_in_the_navigation_of_those_who_harmonize(client, trial, people):
    for person, expected in ((people.statistician, 1), (people.auditor, 1), (people.coordinator, 0)):
        text = page(client, person, "jobs").content.decode()
        assert text.count(f'href="{reverse("algorithms")}"') == expected


def test_an_export_is_asked_for_and_listed_with_its_progress(client, trial, people):
    asked = post(client, people.statistician, "export-start", trial.code, include_images="yes")
    refused = post(client, people.coordinator, "export-start", trial.code)
    shown = page(client, people.auditor, "exports", trial.code)

    row = Export.objects.get()
    assert [asked.status_code, refused.status_code] == [302, 403]
    assert row.include_images is True
    assert shown.context["exports_waiting"] is True
    assert "hx-trigger" in shown.content.decode()
    sponsor = MembershipFactory(trial=trial, role=Role.SPONSOR).user
    assert page(client, sponsor, "exports", trial.code).context["exports"] == []
    assert "Make a package" not in page(client, sponsor, "data-lock", trial.code).content.decode()


def test_a_finished_export_is_downloaded_from_the_page(client, trial, people):
    post(client, people.statistician, "export-start", trial.code)
    row = Export.objects.get()
    export_services.execute_export(job_context(), export_id=str(row.pk))

    shown = page(client, people.auditor, "data-lock", trial.code)

    address = reverse("export-package", args=[row.pk])
    assert address in shown.content.decode()
    assert shown.context["exports_waiting"] is False
    assert b"".join(client.get(address).streaming_content)[:2] == b"PK"


def test_a_finished_run_shows_before_and_after(client, trial, people, features):
    run = finished_run(people, features, plan=locked_plan(trial, people))

    answer = page(client, people.auditor, "run", trial.code, run.pk)

    text = answer.content.decode()
    assert "PRIMARY RUN under the locked plan" in text
    assert "exploratory-banner" not in text
    assert "HELD-OUT evidence" in text
    assert "IN-SAMPLE" in text
    assert len(answer.context["effects"]) == 24
    assert {item["name"] for item in answer.context["covariates"]} >= {"age"}
    assert page(client, people.auditor, "run-data", trial.code, run.pk).content.startswith(
        b"subject,visit,batch,"
    )
    assert page(client, people.auditor, "run-model", trial.code, run.pk).content[:2] == b"PK"
    chosen = page(client, people.auditor, "run-covariate", trial.code, run.pk, effect="age|mm3")
    assert (chosen.context["covariate_unit"], len(chosen.context["covariate_rows"])) == ("mm3", 10)


def test_an_exploratory_run_says_so_on_its_page_and_in_every_section(client, trial, people, features):
    run = finished_run(people, features, specification=plan_document())

    text = page(client, people.auditor, "run", trial.code, run.pk).content.decode()

    assert "EXPLORATORY RUN: no plan" in text
    assert text.count("kind-chip") >= 9
    assert "PRIMARY RUN" not in text


def test_a_refused_run_shows_why_and_offers_no_data(client, trial, people, features):
    document = plan_document()
    document["parameters"] = {
        **document["parameters"],
        "covariates": [{"name": "site", "kind": "categorical"}],
    }
    run = finished_run(people, features, specification=document)

    text = page(client, people.statistician, "run", trial.code, run.pk).content.decode()

    assert "The gate refused this run" in text
    assert reverse("run-data", args=[trial.code, run.pk]) not in text
    assert page(client, people.statistician, "run-data", trial.code, run.pk).status_code == 404


def test_a_run_is_started_followed_and_cancelled_by_page(client, trial, people, features):
    plan = locked_plan(trial, people)
    started = post(
        client,
        people.statistician,
        "run-start",
        trial.code,
        plan=str(plan.pk),
        feature_set=str(features.pk),
    )
    run = HarmonizationRun.objects.get()
    followed = page(client, people.statistician, "run-progress", trial.code, run.pk)
    forbidden = post(client, people.auditor, "run-cancel", trial.code, run.pk)
    cancelled = post(client, people.statistician, "run-cancel", trial.code, run.pk)
    ended = page(client, people.statistician, "run-progress", trial.code, run.pk)

    run.refresh_from_db()
    assert [started.status_code, forbidden.status_code, cancelled.status_code] == [302, 403, 302]
    assert "HX-Refresh" not in followed.headers
    assert ended.headers["HX-Refresh"] == "true"
    assert run.state == "cancelled"


def test_lists_come_as_csv(client, trial, people, features):
    finished_run(people, features, specification=plan_document())

    for name in ("feature-sets", "plans", "runs"):
        answer = page(client, people.auditor, name, trial.code, format="csv")
        lines = b"".join(answer.streaming_content).decode().splitlines()
        assert answer["Content-Type"].startswith("text/csv")
        assert len(lines) == {"feature-sets": 2, "plans": 1, "runs": 2}[name]


def test_the_lock_needs_the_trials_code_and_then_shows_its_proof(client, trial, people):
    lock_versions(trial, people.admin)
    post(client, people.admin, "data-lock-freeze", trial.code, reason="Last patient out")
    signature = {"password": PASSWORD, "meaning": "Final"}
    unconfirmed = post(client, people.admin, "data-lock-sign", trial.code, confirmation="demo", **signature)
    assert DataLock.objects.get().state == "frozen"
    locked = post(client, people.admin, "data-lock-sign", trial.code, confirmation=trial.code, **signature)

    answer = page(client, people.auditor, "data-lock", trial.code)
    lock = DataLock.objects.get()
    assert (unconfirmed.status_code, locked.status_code, lock.state) == (400, 302, "locked")
    assert [event.action for event in answer.context["history"]] == ["opened", "frozen", "locked"]
    assert [anchor["signature_valid"] for anchor in answer.context["anchors"]] == [True]
    assert lock.manifest_digest in answer.content.decode()
    manifest = page(client, people.auditor, "data-lock-manifest", trial.code)
    assert json.loads(manifest.content)["trial"]["code"] == trial.code


def test_only_an_administrator_freezes(client, trial, people):
    answer = post(client, people.statistician, "data-lock-freeze", trial.code, reason="Now")

    assert answer.status_code == 403
    assert DataLock.objects.count() == 0


def test_a_freeze_ends_only_with_a_reason(client, trial, people):
    post(client, people.admin, "data-lock-freeze", trial.code, reason="Interim")
    without = post(client, people.admin, "data-lock-unfreeze", trial.code, reason=" ")
    ended = post(client, people.admin, "data-lock-unfreeze", trial.code, reason="One more site")

    assert (without.status_code, ended.status_code) == (409, 302)
    assert DataLock.objects.get().state == "open"
