"""A statistician reads a run before and after, downloads it, and drafts a plan with the gate beside it."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from harmonization_app.models import FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from hub.core.jobs.heartbeat import JobContext
from hub.core.models import Job
from hub.demo.features import as_csv, metadata
from hub.demo.harmonize import ALGORITHMS
from hub.demo.trial import harmonization_plan_document, trial_document
from sites_app.models import Role, Trial
from sites_app.services.trial_file import apply_trial
from tests.browser.conftest import PHONE, Visitor
from tests.factories.locked import lock_algorithm
from tests.factories.sites_app import PASSWORD, MembershipFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SECTIONS = ("trial", "arms", "visit_definitions", "sites", "subjects")


@dataclass
class World:
    trial: Trial
    statistician: Any
    features: FeatureSet
    primary: HarmonizationRun
    exploratory: HarmonizationRun

    def path(self, rest: str) -> str:
        return f"/t/{self.trial.code}/{rest}"


@pytest.fixture
def world(transactional_db, settings, tmp_path: Path) -> World:  # type: ignore[no-untyped-def]
    """The demonstration's measurements, a locked plan, a primary run under it and an exploratory one."""
    document = {key: value for key, value in trial_document().items() if key in SECTIONS}
    trial, _ = apply_trial(actor=None, content=json.dumps(document), name="trial.json")
    assert trial is not None
    admin = MembershipFactory(trial=trial, role=Role.TRIAL_ADMINISTRATOR).user
    person = MembershipFactory(trial=trial, role=Role.STATISTICIAN).user
    features = feature_services.import_feature_set(
        actor=person, trial=trial, name="Features", content=as_csv().encode(), metadata=metadata()
    )
    for version in algorithm_services.register_algorithms():
        if version.algorithm in ALGORITHMS:
            lock_algorithm(version, admin)
    draft = plan_services.save_draft(actor=person, trial=trial, document=harmonization_plan_document())
    plan = plan_services.lock_plan(actor=admin, plan=draft, password=PASSWORD, meaning="I approve")
    return World(
        trial,
        person,
        features,
        _run(person, features, plan=plan),
        _run(person, features, specification=harmonization_plan_document()),
    )


def _run(person: Any, features: FeatureSet, **what: Any) -> HarmonizationRun:
    run = run_services.start_run(actor=person, feature_set=features, **what)
    _carry_out(run)
    run.refresh_from_db()
    assert run.state == "succeeded"
    return run


def test_a_statistician_reads_a_run_and_downloads_it(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)

    assert visitor.open(world.path("harmonization/")) == 200
    expect(page.locator(".way-step")).to_have_count(5)
    page.locator(f"a[href$='/runs/{world.primary.pk}/']").click()

    expect(page.locator(".primary-banner")).to_contain_text("PRIMARY RUN")
    expect(page.get_by_text("HELD-OUT evidence")).to_be_visible()
    charts = page.locator("[data-chart]")
    assert charts.count() >= 10
    expect(page.locator("[data-chart] svg")).to_have_count(charts.count())
    expect(page.locator("#look [data-chart] svg")).to_have_count(2)
    page.get_by_label("Feature", exact=True).select_option("volume_putamen_right")
    expect(page.locator("#look")).to_contain_text("Numbers (mm3)")
    expect(page.locator("#look [data-chart] svg")).to_have_count(2)
    page.get_by_label("Effect of", exact=True).select_option("age|mm3")
    expect(page.locator("#covariate")).to_contain_text("mm3 per unit of age")
    expect(page.locator("#covariate .chart svg")).to_have_count(1)
    with page.expect_download() as started:
        page.get_by_role("link", name="Data (CSV)").click()
    with started.value.path().open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 120
    assert {row["harmonization_kind"] for row in rows} == {"primary"}
    with page.expect_download() as report:
        page.get_by_role("link", name="PDF").click()
    assert report.value.path().read_bytes().startswith(b"%PDF-")


def test_an_exploratory_run_cannot_be_taken_for_a_primary_one(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)

    visitor.open(world.path(f"runs/{world.exploratory.pk}/"))
    banner = page.locator(".exploratory-banner")
    page.mouse.wheel(0, 3000)
    expect(banner).to_be_in_viewport()
    expect(page.locator(".run-page section.panel .kind-chip")).to_have_count(
        page.locator(".run-page section.panel").count()
    )
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.wait_for_timeout(300)
    assert visitor.overflow_px() == 0


def test_the_report_shows_its_style_and_watermark_under_the_policy(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)

    visitor.open(world.path(f"runs/{world.exploratory.pk}/report/"))

    expect(page.locator(".watermark")).to_have_css("position", "fixed")
    expect(page.locator("svg.figure").first).to_be_visible()
    assert page.locator(".tag.exploratory").count() == page.locator("h2").count()


def test_a_plan_is_drafted_with_the_gate_beside_it(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)
    visitor.open(world.path("plans/new/"))
    gate = page.locator("#gate")
    expect(gate).to_contain_text("it still needs a name and a title")

    page.get_by_label("Title").fill("Written by hand")
    page.get_by_label("Title").blur()
    expect(page.get_by_label("Name (a-z, 0-9, -)")).to_have_value("written-by-hand")
    page.get_by_label("Name (a-z, 0-9, -)").fill("By Hand")
    page.get_by_label("Name (a-z, 0-9, -)").blur()
    expect(gate).to_contain_text("/name")
    page.get_by_label("Name (a-z, 0-9, -)").fill("by-hand")
    page.get_by_role("button", name="Take features and pools").click()
    expect(gate).to_contain_text("the gate lets this through")
    page.get_by_label("Preserve site as").select_option("categorical")
    expect(gate).to_contain_text("the gate refuses this")
    expect(gate).to_contain_text("site")
    page.get_by_label("Preserve site as").select_option("")
    expect(gate).to_contain_text("the gate lets this through")
    page.get_by_label("Rows with deviant images").select_option("exclude")
    page.get_by_label("A scanner change inside a batch").select_option("split")
    page.get_by_label("Plausible ranges").fill("mm: 0, 1")
    page.get_by_label("Plausible ranges").blur()
    expect(gate).to_contain_text("outside the ranges of the plan")
    page.get_by_label("Plausible ranges").fill("mm: 0, 10\nmm3: 0,")
    page.get_by_label("Plausible ranges").blur()
    expect(gate).to_contain_text("the gate lets this through")
    page.get_by_label("leave one batch out").check()
    page.get_by_label("unharmonized, batch in the model").check()
    page.get_by_label("leave one batch out").uncheck()
    expect(gate).to_contain_text("the gate lets this through")
    page.get_by_role("button", name="Store the draft").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("Written by hand")
    plan = HarmonizationPlan.objects.get(name="by-hand")
    assert plan.document["image_rows"] == {"deviant": "exclude"}
    assert plan.document["scanner_changes"] == "split"
    assert plan.document["plausible_ranges"] == {"mm": [0, 10], "mm3": [0, None]}
    assert plan.document["sensitivity"] == [{"kind": "unharmonized"}]
    assert "calibration" not in plan.document
    assert [pool["name"] for pool in plan.document["parameters"]["pools"]] == ["thickness", "volume"]


def test_a_csv_is_described_in_the_browser_and_imported(
    world: World, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.page
    source = tmp_path / "measures.csv"
    subject, visit = world.features.rows[0]["row"].split("|")
    source.write_text(f"subject,visit,batch,age,hippocampus\n{subject},{visit},A,71,3812.5\n")
    visitor.log_in(world.statistician.username)
    visitor.open(world.path("feature-sets/new/"))

    page.get_by_label("File").set_input_files(source)
    expect(page.locator("[data-import-count]")).to_have_text("1 features, 1 without a unit, 1 covariates")
    page.get_by_label("Unit of hippocampus").fill("mm3")
    page.get_by_role("button", name="Check and store").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("measures")
    row = FeatureSet.objects.get(name="measures")
    assert row.columns == [{"name": "hippocampus", "unit": "mm3", "pool": ""}]
    assert row.covariates == [{"name": "age", "kind": "continuous"}]


def test_candidate_plans_are_compared_and_marked_exploratory(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)
    visitor.open(world.path("plans/"))
    page.get_by_role("link", name="Compare candidates").click()
    expect(page.locator(".exploratory-banner")).to_contain_text("after the plan")

    page.get_by_label("as it stands").check()
    page.get_by_label("mean only").check()
    page.get_by_role("button", name="Run and compare").click()
    expect(page.get_by_role("heading", name="Progress")).to_be_visible()
    for run in HarmonizationRun.objects.filter(state="queued"):
        _carry_out(run)
    expect(page.get_by_role("heading", name="Progress")).to_have_count(0, timeout=15_000)

    expect(page.locator(".exploratory-banner")).to_contain_text("EXPLORATORY COMPARISON")
    expect(page.get_by_text("HELD-OUT evidence")).to_be_visible()
    expect(page.locator("[data-chart] svg")).to_have_count(1)
    expect(page.get_by_role("row", name="A and B")).to_contain_text("120")
    assert HarmonizationRun.objects.filter(kind="primary").count() == 1
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.wait_for_timeout(300)
    assert visitor.overflow_px() == 0


def _carry_out(run: HarmonizationRun) -> None:
    job = Job.objects.get(key=str(run.pk))
    Job.objects.filter(pk=job.pk).update(state="running", attempts=1)
    run_execution.execute_run(JobContext(job_id=job.pk, attempt=1), run_id=str(run.pk))
    Job.objects.filter(pk=job.pk).update(state="succeeded")


def test_a_csv_of_100000_columns_is_described_fifty_at_a_time(
    world: World, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.page
    names = [f"{('area', 'volume')[number % 2]}_{number:05d}" for number in range(100_000)]
    keys = [row["row"].split("|") for row in world.features.rows[:3]]
    lines = [",".join(["subject", "visit", "batch", *names])]
    for index, (subject, visit) in enumerate(keys):
        lines.append(",".join([subject, visit, "PQR"[index], *["1.5"] * len(names)]))
    source = tmp_path / "wide.csv"
    source.write_text("\n".join(lines))
    visitor.log_in(world.statistician.username)
    visitor.open(world.path("feature-sets/new/"))

    page.get_by_label("File").set_input_files(source)
    expect(page.locator("[data-import-count]")).to_contain_text("100,000 features, 100,000 without a unit")
    expect(page.locator("[data-import-rows] tr")).to_have_count(50)
    page.get_by_label("Columns that contain").fill("volume")
    expect(page.locator("[data-import-page]")).to_contain_text("50,000 columns, page 1 of 1000")
    page.get_by_label("Columns that contain").fill("")
    page.get_by_label("Unit for them").fill("mm3")
    page.get_by_role("button", name="Fill in these features").click()
    page.get_by_role("button", name="Pools by first word").click()
    expect(page.locator("[data-import-count]")).to_have_text("100,000 features in 2 pools, 0 covariates")
    page.get_by_role("button", name="Check and store").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("wide", timeout=60_000)
    row = FeatureSet.objects.get(name="wide")
    assert (row.column_count, row.columns[-1]) == (
        100_000,
        {"name": "volume_99999", "unit": "mm3", "pool": "volume"},
    )
    expect(page.locator("[data-suggest]")).to_be_visible()
    page.locator("[data-suggest]").fill("99998")
    expect(page.locator("#feature-suggestions option")).to_have_count(1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("subject;visit;age\nS1;baseline;71\n", "separated by semicolons"),
        ("subject,visit,volume\nS1,baseline,12,5\n", "Decimal commas split cells"),
        ('subject,visit,volume\nS1,baseline,"12,5"\n', "cells that are no numbers"),
        ("\ufeffsubject,visit,volume\nS1,baseline,12.5\n", "byte-order mark, which is skipped"),
        ("subject,visit,volume\nS1,baseline,12.5\nS2,baseline,large\n", "cells that are no numbers"),
    ],
)
def test_a_faulty_csv_is_named_before_anything_is_sent(
    world: World, visitor: Visitor, tmp_path: Path, content: str, words: str
) -> None:
    page = visitor.page
    source = tmp_path / "faulty.csv"
    source.write_text(content, encoding="utf-8")
    visitor.log_in(world.statistician.username)
    visitor.open(world.path("feature-sets/new/"))

    page.get_by_label("File").set_input_files(source)

    expect(page.locator("[data-import-faults]")).to_contain_text(words)


def test_a_frozen_model_is_applied_from_the_page_of_its_run(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)
    visitor.open(world.path(f"runs/{world.primary.pk}/"))

    page.get_by_role("button", name="Apply", exact=True).click()
    expect(page.get_by_text("This page follows the run")).to_be_visible()
    run = HarmonizationRun.objects.get(mode="apply")
    _carry_out(run)
    visitor.open(world.path(f"runs/{run.pk}/"))

    expect(page.get_by_role("heading", name="Frozen model", exact=True)).to_be_visible()
    expect(page.locator(".primary-banner")).to_contain_text("Frozen model applied")
    expect(page.get_by_text("Former parameters unchanged: yes")).to_be_visible()
    visitor.open(world.path(f"runs/{world.primary.pk}/"))
    with page.expect_download() as whole:
        page.get_by_role("link", name="Whole run (ZIP)").click()
    with zipfile.ZipFile(whole.value.path()) as package:
        assert {"rerun.py", "manifest.json", "result/data.csv"} <= {
            name.split("/", 1)[-1] if name.startswith("harmonization") else name
            for name in package.namelist()
        }


def test_a_batch_that_was_refused_is_not_told_as_added(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.log_in(world.statistician.username)
    visitor.open(world.path(f"runs/{world.primary.pk}/"))

    page.get_by_label("New batch, as the feature set names it").fill("nowhere")
    page.get_by_label("Reason", exact=True).fill("A new scanner")
    page.get_by_role("button", name="Add the batch").click()
    expect(page.get_by_text("This page follows the run")).to_be_visible()
    run = HarmonizationRun.objects.get(mode="add_batch")
    _carry_out(run)
    visitor.open(world.path(f"runs/{run.pk}/"))

    run.refresh_from_db()
    assert run.state == "refused"
    expect(page.locator(".primary-banner")).to_contain_text("To add batch nowhere")
    expect(page.get_by_text("That did not happen")).to_be_visible()
    expect(page.get_by_role("link", name="Import the scans of that batch alone")).to_be_visible()
