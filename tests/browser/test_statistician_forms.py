"""What a form does in the browser when the hub refuses it, what a choice keeps, and what a figure says on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from harmonization_app.models import FeatureSet, HarmonizationPlan
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
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


@pytest.fixture
def trial(transactional_db, settings, tmp_path: Path) -> Trial:  # type: ignore[no-untyped-def]
    document = {key: value for key, value in trial_document().items() if key in SECTIONS}
    trial, _ = apply_trial(actor=None, content=json.dumps(document), name="trial.json")
    assert trial is not None
    return trial


@pytest.fixture
def admin(trial: Trial) -> Any:
    """A trial administrator, with the demonstration's algorithms locked."""
    person = MembershipFactory(trial=trial, role=Role.TRIAL_ADMINISTRATOR).user
    for version in algorithm_services.register_algorithms():
        if version.algorithm in ALGORITHMS:
            lock_algorithm(version, person)
    return person


def feature_set(trial: Trial, person: Any, name: str, rows_left_out: int = 0) -> FeatureSet:
    lines = as_csv().splitlines()
    content = "\n".join(lines[: len(lines) - rows_left_out]).encode()
    return feature_services.import_feature_set(
        actor=person, trial=trial, name=name, content=content, metadata=metadata()
    )


def test_a_wrong_password_keeps_what_was_typed(trial: Trial, admin: Any, visitor: Visitor) -> None:
    plan = plan_services.save_draft(actor=admin, trial=trial, document=harmonization_plan_document())
    page = visitor.page
    visitor.log_in(admin.username)
    visitor.open(f"/t/{trial.code}/plans/{plan.pk}/")

    page.get_by_label("Meaning of the signature").fill("I approve it, in my own words")
    password = page.get_by_label("Your password")
    password.fill("not the password")
    page.get_by_role("button", name="Lock and sign").click()

    expect(page.get_by_role("alert")).to_contain_text("The signature was refused")
    expect(page.get_by_label("Meaning of the signature")).to_have_value("I approve it, in my own words")
    expect(password).to_have_value("")
    expect(password).to_be_focused()
    expect(password).to_have_attribute("aria-invalid", "true")
    expect(page.locator(f"#{password.get_attribute('aria-describedby')}")).to_contain_text("not right")
    # The browser's console tells of every answer of 400 and more; this one was asked for.
    visitor.faults.clear()
    password.fill(PASSWORD)
    page.get_by_role("button", name="Lock and sign").click()
    expect(page.get_by_text("Signed by")).to_be_visible()
    plan.refresh_from_db()
    assert plan.signature.meaning == "I approve it, in my own words"


def test_a_refused_draft_stays_in_the_editor(trial: Trial, admin: Any, visitor: Visitor) -> None:
    feature_set(trial, admin, "Features")
    page = visitor.page
    visitor.log_in(admin.username)
    visitor.open(f"/t/{trial.code}/plans/new/")

    page.get_by_label("Rationale").fill("A long rationale that nobody types twice")
    page.get_by_label("Rationale").blur()
    page.get_by_role("button", name="Store the draft").click()

    expect(page.get_by_label("Title")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Rationale")).to_have_value("A long rationale that nobody types twice")
    visitor.faults.clear()
    page.get_by_label("Title").fill("Kept")
    page.get_by_label("Title").blur()
    page.get_by_role("button", name="Store the draft").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Kept")
    rationale = HarmonizationPlan.objects.get(name="kept").document["rationale"]
    assert rationale == "A long rationale that nobody types twice"


def test_the_feature_set_of_the_gate_is_in_the_address(trial: Trial, admin: Any, visitor: Visitor) -> None:
    older = feature_set(trial, admin, "Older")
    feature_set(trial, admin, "Newer", rows_left_out=1)
    plan = plan_services.save_draft(actor=admin, trial=trial, document=harmonization_plan_document())
    page = visitor.page
    visitor.log_in(admin.username)
    visitor.open(f"/t/{trial.code}/plans/{plan.pk}/")
    expect(page.locator("#gate")).to_contain_text("on Newer")

    page.get_by_label("Checked on").select_option(str(older.pk))

    expect(page.locator("#gate")).to_contain_text("on Older")
    page.reload()
    expect(page.locator("#gate")).to_contain_text("on Older")
    page.get_by_role("link", name="Run (exploratory)").click()
    expect(page.get_by_label("Feature set", exact=True)).to_have_value(str(older.pk))


def test_a_matrix_is_read_and_imported_in_the_browser(
    trial: Trial, admin: Any, visitor: Visitor, tmp_path: Path
) -> None:
    rows = feature_set(trial, admin, "Features").rows[:3]
    keys = [row["row"].split("|") for row in rows]
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "subject,visit,batch,age\n"
        + "".join(f"{subject},{visit},A,{70 + at}\n" for at, (subject, visit) in enumerate(keys))
    )
    np.save(tmp_path / "short.npy", np.ones((2, 4)))
    np.save(tmp_path / "values.npy", np.arange(12.0).reshape(3, 4))
    names = tmp_path / "names.csv"
    names.write_text("name,unit,pool\nleft,mm3,volume\nright,mm3,volume\nthird,,\nfourth,,\n")
    page = visitor.page
    visitor.log_in(admin.username)
    visitor.open(f"/t/{trial.code}/feature-sets/new/")

    page.get_by_text("Too wide for a CSV?").click()
    page.get_by_label("File", exact=True).set_input_files(labels)
    page.get_by_label("Matrix", exact=True).set_input_files(labels)
    expect(page.locator("[data-import-faults]")).to_contain_text("The matrix is not an NPY file")
    page.get_by_label("Matrix", exact=True).set_input_files(tmp_path / "short.npy")
    expect(page.locator("[data-import-faults]")).to_contain_text("labels 3 rows, the matrix has 2")
    page.get_by_label("Matrix", exact=True).set_input_files(tmp_path / "values.npy")
    page.get_by_label("Names of its columns").set_input_files(names)
    page.get_by_label("Unit of its columns").fill("mm")
    expect(page.locator("[data-import-faults]")).to_be_empty()
    expect(page.locator("[data-import-count]")).to_have_text("4 features in the matrix, 1 covariates")
    page.get_by_label("Name", exact=True).fill("Vertices")
    page.get_by_role("button", name="Check and store").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Vertices")
    row = FeatureSet.objects.get(name="Vertices")
    assert [(item["name"], item["unit"]) for item in row.columns] == [
        ("left", "mm3"),
        ("right", "mm3"),
        ("third", "mm"),
        ("fourth", "mm"),
    ]
    assert row.covariates == [{"name": "age", "kind": "continuous"}]


def test_a_figure_is_saved_as_vectors_and_pixels(trial: Trial, admin: Any, visitor: Visitor) -> None:
    features = feature_set(trial, admin, "Features")
    page = visitor.page
    visitor.log_in(admin.username)
    visitor.open(f"/t/{trial.code}/feature-sets/{features.pk}/")

    with page.expect_download() as vectors:
        page.get_by_role("button", name="Download as SVG").first.click()
    with page.expect_download() as pixels:
        page.get_by_role("button", name="Download as PNG").first.click()

    assert vectors.value.suggested_filename.endswith(".svg")
    assert vectors.value.path().read_text().startswith("<svg")
    assert pixels.value.path().read_bytes().startswith(b"\x89PNG")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.wait_for_timeout(300)
    assert visitor.overflow_px() == 0
