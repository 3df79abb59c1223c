"""A site coordinator sends a visit's images in the browser and reads what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect

from hub.demo.protocol import protocol_document
from hub.demo.simulator import Changes, SimulatedSeries, simulate_mr
from qc_app.models import Deviation, Query
from qc_app.protocol.schema import parse_protocol
from sites_app.models import Role, Submission, Trial
from tests.browser.conftest import PHONE, Visitor
from tests.factories.qc_app import DeviationFactory, ProtocolFactory, QCProfileFactory, QueryFactory
from tests.factories.sites_app import (
    MembershipFactory,
    SiteFactory,
    SubjectFactory,
    TrialFactory,
    UserFactory,
    VisitDefinitionFactory,
    VisitFactory,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PROCESSED_MS = 60_000
SLICES = 20


@dataclass
class World:
    trial: Trial
    coordinator: str
    data_manager: str


@pytest.fixture
def world(transactional_db) -> World:  # type: ignore[no-untyped-def]
    """A trial with one site, one subject, the demonstration's protocol, and two people."""
    trial = TrialFactory(code="JOURNEY")
    parsed = parse_protocol(protocol_document())
    ProtocolFactory(trial=trial, locked=True, document=dict(parsed.document), digest=parsed.digest)
    QCProfileFactory(trial=trial, locked=True)
    VisitDefinitionFactory(trial=trial, code="baseline", title="Baseline", position=0)
    VisitDefinitionFactory(trial=trial, code="month-12", title="Month 12", position=1, target_day=365)
    site = SiteFactory(trial=trial, code="S01")
    SubjectFactory(site=site, code="S01-001")
    coordinator = MembershipFactory(
        user=UserFactory(username="coordinator"), trial=trial, site=site, role=Role.SITE_COORDINATOR
    )
    manager = MembershipFactory(user=UserFactory(username="manager"), trial=trial, role=Role.DATA_MANAGER)
    return World(trial, coordinator.user.username, manager.user.username)


def written(folder: Path, series: SimulatedSeries) -> Path:
    for file in series.files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
    return folder


def test_upload_of_a_folder_to_its_verdicts(
    world: World, visitor: Visitor, worker: object, tmp_path: Path
) -> None:
    folder = written(
        tmp_path / "visit",
        simulate_mr(slices=SLICES, seed=7, changes=Changes(values={"RepetitionTime": 2400.0})),
    )
    (folder / "notes.txt").write_text("no image")
    page = visitor.page

    visitor.log_in(world.coordinator)
    expect(page.get_by_role("heading", name="What to do next")).to_be_visible()
    page.get_by_role("link", name="send images").first.click()
    expect(page.locator("#visit")).to_have_value("baseline")
    page.set_input_files("[webkitdirectory]", folder)
    expect(page.locator("[data-chosen-text]")).to_contain_text(f"{SLICES + 1} files")
    page.get_by_role("button", name="Send").click()

    expect(page.locator("#submission-progress[data-final=yes]")).to_be_visible(timeout=PROCESSED_MS)
    expect(page.locator("[data-step]")).to_have_text("Finished", timeout=PROCESSED_MS)
    outcomes = page.locator("[data-outcomes]")
    expect(outcomes).to_contain_text(f"{SLICES} accepted")
    expect(outcomes).to_contain_text("1 ignored")
    expect(page.locator("[data-files]")).to_contain_text("notes.txt")
    series = page.locator("#submission-series[data-judged=yes]")
    expect(series).to_be_visible(timeout=PROCESSED_MS)
    expect(series).to_contain_text("deviant")

    submission = Submission.objects.get()
    assert submission.channel == "browser"
    assert submission.state == Submission.State.ACCEPTED
    assert submission.counts["accepted"] == SLICES
    assert len(submission.manifest) == SLICES + 1
    deviation = Deviation.objects.get(parameter="RepetitionTime")

    series.get_by_role("link", name=deviation.detail).click()
    expect(page.locator("main")).to_contain_text("2400 ms")
    expect(page.locator(".to-do")).to_contain_text("Set TR to 2300 ms")
    page.fill("[name=reason]", "Wrong exam card loaded.")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("The deviation is acknowledged.")).to_be_visible()
    deviation.refresh_from_db()
    assert (deviation.state, deviation.reason) == ("acknowledged", "Wrong exam card loaded.")

    visitor.open(f"/t/JOURNEY/submissions/{submission.pk}/receipt/")
    expect(page.locator("#receipt-files tbody tr")).to_have_count(SLICES + 1)
    expect(page.locator("main")).to_contain_text(submission.receipt_digest)
    visitor.open(f"/t/JOURNEY/series/{deviation.series_id}/")
    loaded = page.locator("[data-preview] img").evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )
    assert loaded > 0
    expect(page.locator("#rules")).to_contain_text("2300 ± 10 ms")


def test_a_refused_transfer_says_why_and_goes_on_where_it_ended(
    world: World, visitor: Visitor, worker: object, tmp_path: Path
) -> None:
    folder = written(tmp_path / "visit", simulate_mr(slices=4, seed=3))
    page = visitor.page
    visitor.log_in(world.coordinator)
    visitor.open("/t/JOURNEY/upload/?subject=S01-001&visit=baseline")
    page.set_input_files("[webkitdirectory]", folder)
    page.route(
        "**/files/", lambda route: route.fulfill(status=507, json={"title": "Full", "detail": "No room."})
    )

    page.get_by_role("button", name="Send").click()

    problem = page.locator("[data-problem]")
    expect(problem).to_contain_text("No room.")
    expect(page.locator("[data-outcomes]")).to_contain_text("4 not sent")
    page.unroute("**/files/")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("[data-step]")).to_have_text("Finished", timeout=PROCESSED_MS)
    assert Submission.objects.get().state == Submission.State.ACCEPTED
    visitor.faults[:] = [fault for fault in visitor.faults if "507" not in fault]


def test_a_query_is_answered_by_the_site_and_closed_by_who_asked(world: World, visitor: Visitor) -> None:
    visit = VisitFactory(
        subject=world.trial.subjects.get(), definition=world.trial.visit_definitions.get(code="baseline")
    )
    deviation = DeviationFactory(series__study__visit=visit, protocol=world.trial.protocols.get())
    query = QueryFactory(deviation=deviation)
    page = visitor.page

    visitor.log_in(world.coordinator)
    visitor.open(f"/t/JOURNEY/queries/{query.pk}/")
    expect(page.locator("main")).to_contain_text("2300 ± 10 ms")
    page.fill("[name=text]", "The exam card is corrected.")
    page.get_by_role("button", name="Send the answer").click()
    expect(page.locator(".thread")).to_contain_text("The exam card is corrected.")
    visitor.context.clear_cookies()
    visitor.log_in(world.data_manager)
    visitor.open(f"/t/JOURNEY/queries/{query.pk}/")
    page.get_by_text("Nothing is open any more.").click()
    page.locator("[name=reason]").fill("Answered.")
    page.get_by_role("button", name="Close the query").click()
    expect(page.get_by_text("The query is closed.")).to_be_visible()

    assert Query.objects.get(pk=query.pk).state == "closed"
    assert query.messages.get().text == "The exam card is corrected."


def test_a_waiver_needs_the_password(world: World, visitor: Visitor) -> None:
    visit = VisitFactory(
        subject=world.trial.subjects.get(), definition=world.trial.visit_definitions.get(code="baseline")
    )
    deviation = DeviationFactory(series__study__visit=visit, protocol=world.trial.protocols.get())
    page = visitor.page
    visitor.log_in(world.data_manager)
    visitor.open(f"/t/JOURNEY/deviations/{deviation.pk}/")
    page.get_by_text("Accept it, with your signature.").click()
    form = page.locator("form[action$='/waive/']")
    form.locator("[name=reason]").fill("Accepted for this subject.")
    form.locator("[name=password]").fill("wrong password")

    form.get_by_role("button").click()
    expect(form.locator(".problem")).to_be_visible()
    deviation.refresh_from_db()
    assert deviation.state == "open"
    visitor.faults[:] = [fault for fault in visitor.faults if "403" not in fault]
    form.locator("[name=password]").fill("correct horse battery staple")
    form.get_by_role("button").click()
    expect(page.get_by_text("your signature is recorded")).to_be_visible()

    deviation.refresh_from_db()
    assert deviation.state == "waived"
    assert deviation.signature is not None


@pytest.mark.parametrize("path", ["", "upload/", "submissions/", "series/", "deviations/", "queries/"])
def test_pages_fit_a_phone_and_say_what_to_do_when_empty(world: World, visitor: Visitor, path: str) -> None:
    visitor.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    visitor.log_in(world.coordinator)

    assert visitor.open(f"/t/JOURNEY/{path}") == 200

    assert visitor.overflow_px() == 0
    expect(visitor.page.locator("h1")).to_be_visible()
