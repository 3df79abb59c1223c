"""A reviewer says on a scanner's page, in a real browser, what was found about a drift alert."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from qc_app.models import DriftAlert
from sites_app.models import Role
from tests.browser.conftest import PHONE, Visitor
from tests.factories.sites_app import MembershipFactory, ScannerFactory, SeriesFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def alerts(transactional_db) -> list[DriftAlert]:  # type: ignore[no-untyped-def]
    """Two open alerts of one scanner."""
    scanner = ScannerFactory()
    series = SeriesFactory(study__visit__subject__site=scanner.site, scanner=scanner)
    return [
        DriftAlert.objects.create(
            trial=scanner.trial, site=scanner.site, scanner=scanner, expected_key="t1", metric="snr_residual",
            chart=chart, direction="up", signalled_by=series, detail="It left its limits.",
        )
        for chart in ("ewma", "cusum")
    ]  # fmt: skip


def test_a_refused_review_keeps_what_was_typed(alerts: list[DriftAlert], visitor: Visitor) -> None:
    alert, other = alerts
    reviewer = MembershipFactory(trial=alert.trial, role=Role.IMAGING_REVIEWER).user
    page = visitor.page
    visitor.log_in(reviewer.username)
    visitor.open(f"/t/{alert.trial.code}/scanners/{alert.scanner_id}/")
    comment, untouched = page.locator(f"#review-{alert.pk}"), page.locator(f"#review-{other.pk}")
    reviewed = page.locator("form", has=comment).get_by_role("button", name="Reviewed")
    untouched.fill("Not sent yet")

    comment.fill("  ")
    reviewed.click()
    expect(comment).to_have_attribute("aria-invalid", "true")
    expect(comment).to_be_focused()
    expect(page.locator(f"#review-{alert.pk}-fault")).to_have_text("Say what you found.")
    expect(untouched).to_have_value("Not sent yet")
    expect(untouched).not_to_have_attribute("aria-invalid", "true")

    DriftAlert.objects.filter(pk=alert.pk).update(state="reviewed", comment="Seen by a colleague.")
    comment.fill("The coil was replaced")
    reviewed.click()
    expect(page.get_by_role("alert")).to_contain_text("This drift alert was reviewed already.")
    expect(comment).to_have_value("The coil was replaced")
    expect(comment).not_to_have_attribute("aria-invalid", "true")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert visitor.overflow_px() == 0

    # The browser's console tells of every answer of 400 and more; these two were asked for.
    visitor.faults[:] = [fault for fault in visitor.faults if "400" not in fault and "409" not in fault]
    page.locator("form", has=untouched).get_by_role("button", name="Reviewed").click()
    expect(page.get_by_text("The drift alert is marked as reviewed.")).to_be_visible()
    other.refresh_from_db()
    assert (other.state, other.comment) == ("reviewed", "Not sent yet")
