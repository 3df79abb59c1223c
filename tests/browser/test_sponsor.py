"""A sponsor reads the dashboard, a site and a series in a real browser."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.sync_api import expect

from qc_app.models import Deviation, SeriesCheck
from qc_app.services.check import check_series
from sites_app.models import Role, Series, Subject, Trial, Visit
from tests.browser.conftest import PHONE, Visitor
from tests.factories.qc_app import MetricValueFactory, ProtocolFactory, QCProfileFactory, observation
from tests.factories.sites_app import (
    ArmFactory,
    MembershipFactory,
    ScannerEpochFactory,
    ScannerFactory,
    SeriesFactory,
    SiteFactory,
    StudyFactory,
    SubjectFactory,
    SubmissionFactory,
    TrialFactory,
    UserFactory,
    VisitDefinitionFactory,
    VisitFactory,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@dataclass
class World:
    trial: Trial
    sponsor: str


@pytest.fixture
def world(transactional_db) -> World:  # type: ignore[no-untyped-def]
    """Two sites with two subjects each; every series is judged by the real check, one departs from the protocol."""
    trial = TrialFactory(code="SPONSORED")
    ProtocolFactory(trial=trial, locked=True)
    QCProfileFactory(trial=trial, locked=True)
    baseline = VisitDefinitionFactory(trial=trial, code="baseline", title="Baseline", position=0)
    VisitDefinitionFactory(trial=trial, code="month-12", title="Month 12", position=1, target_day=365)
    arm = ArmFactory(trial=trial, code="secret-arm", title="Secret arm")
    for code in ("S01", "S02"):
        site = SiteFactory(trial=trial, code=code, name=f"Clinic {code}")
        scanner = ScannerFactory(site=site, serial_number=f"{code}-MR")
        epoch = ScannerEpochFactory(scanner=scanner, number=1)
        for number in (1, 2):
            subject = SubjectFactory(site=site, code=f"{code}-{number:03d}", arm=arm)
            visit = VisitFactory(subject=subject, definition=baseline)
            series = SeriesFactory(
                study=StudyFactory(visit=visit), scanner=scanner, scanner_epoch=epoch, description="T1 of the head",
                submission=SubmissionFactory(visit=visit, state="accepted", profile__trial=trial),
                observation=observation(RepetitionTime=2400.0 if (code, number) == ("S02", 1) else 2300.0),
            )  # fmt: skip
            check_series(series_id=series.pk)
            MetricValueFactory(series=series, name="snr_background", value=20.0 + number)
    user = UserFactory(username="sponsor", full_name="Sponsor")
    MembershipFactory(user=user, trial=trial, role=Role.SPONSOR)
    return World(trial, "sponsor")


def test_a_sponsor_reads_dashboard_site_and_series(world: World, visitor: Visitor) -> None:
    trial, page = world.trial, visitor.page
    departed = Deviation.objects.get(trial=trial, rule="tr")
    series = Series.objects.filter(trial=trial)

    visitor.log_in(world.sponsor)
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    figures = {
        "subjects": Subject.objects.filter(trial=trial).count(),
        "visits-received": Visit.objects.filter(trial=trial).count(),
        "series": series.count(),
        "open-deviations": Deviation.objects.filter(trial=trial, state="open").count(),
        "qc-failures": SeriesCheck.objects.filter(trial=trial, is_current=True, qc_outcome="fail").count(),
        "quarantined": 0,
    }
    for name, number in figures.items():
        expect(page.locator(f"[data-figure={name}]")).to_have_text(str(number))
    assert figures["subjects"] == 4
    for chart in ("pareto-data", "by-site-data", "boxes-data", "over-time-0"):
        assert page.locator(f"[data-chart={chart}] svg path").count() > 0, chart
    page.select_option("#grid-site", "S02")
    expect(page.locator("#visit-grid tbody tr")).to_have_count(2)
    seen = page.content()

    page.locator("#scorecards").get_by_role("link", name="S02").click()
    expect(page.get_by_role("heading", name="Site S02")).to_be_visible()
    expect(page.locator("[data-figure=series]")).to_have_text(str(series.filter(site__code="S02").count()))
    expect(page.locator("#site-deviations")).to_contain_text(departed.detail)
    seen += page.content()
    page.locator("#visit-grid").get_by_role("link").first.click()
    page.get_by_role("main").get_by_role("link", name="T1 of the head").first.click()
    expect(page.get_by_role("main")).to_contain_text("2300 ± 10 ms")
    seen += page.content()

    assert "secret-arm" not in seen.lower() and "secret arm" not in seen.lower()


def test_choosing_a_metric_redraws_and_the_pages_fit_a_phone(world: World, visitor: Visitor) -> None:
    page = visitor.page
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    visitor.log_in(world.sponsor)

    page.select_option("#metric-name", "efc")
    expect(page.locator("#metric")).to_contain_text("No values of Entropy focus criterion")
    page.wait_for_function("!document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")
    page.select_option("#metric-name", "snr_background")
    expect(page.locator("#metric [data-chart=boxes-data] svg")).to_be_visible()
    assert visitor.overflow_px() == 0

    for path in ("sites/S02/", "scanners/", "protocol/", "qc-profile/"):
        assert visitor.open(f"/t/SPONSORED/{path}") == 200
        assert visitor.overflow_px() == 0, path
