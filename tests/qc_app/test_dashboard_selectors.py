"""What the dashboards show, to whom, and at what cost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from qc_app.models import Deviation, DriftAlert, MetricValue, SeriesCheck
from qc_app.selectors import dashboard
from qc_app.services import drift
from qc_app.services.check import check_visit
from sites_app.models import Role, Series, SeriesState
from tests.factories.qc_app import MetricValueFactory, SeriesCheckFactory
from tests.factories.sites_app import (
    MembershipFactory,
    ScannerEpochFactory,
    ScannerFactory,
    SiteFactory,
    SubjectFactory,
    VisitDefinitionFactory,
    VisitFactory,
)


def subject_visit(world, site=None):
    subject = SubjectFactory(site=site or world.visit.site)
    definition = world.visit.definition
    return VisitFactory(subject=subject, definition=definition, performed_on=world.visit.performed_on)


@pytest.fixture
def sponsor(world):
    return MembershipFactory(trial=world.trial, role=Role.SPONSOR).user


def state_of(grid, visit) -> str:
    return next(cell.state for row in grid.rows for cell in row.cells if cell.visit_id == visit.pk)


def test_the_grid_shows_one_state_per_visit(world, sponsor):
    cases = {
        name: subject_visit(world) for name in ("received", "compliant", "deviant", "failed_qc", "failed")
    }
    world.receive(visit=cases["received"])
    world.check(visit=cases["compliant"])
    world.check(visit=cases["deviant"], RepetitionTime=2400.0)
    failed_qc = world.check(visit=cases["failed_qc"])
    SeriesCheck.objects.filter(series=failed_qc).update(qc_outcome="fail")
    failed = world.check(visit=cases["failed"])
    Series.objects.filter(pk=failed.pk).update(state=SeriesState.FAILED)

    grid = dashboard.subject_visit_grid(sponsor, world.trial)

    states = {name: state_of(grid, visit) for name, visit in cases.items()}
    assert states == {
        "received": "received", "compliant": "compliant", "deviant": "deviant", "failed_qc": "failed_qc",
        "failed": "not_evaluable",
    }  # fmt: skip
    assert state_of(grid, world.visit) == "nothing"
    assert grid.columns == (("baseline", "Visit baseline"),)
    assert grid.subjects == 6
    assert grid.totals["deviant"] == 1


def test_a_visit_with_a_missing_series_only_is_deviant(world, sponsor):
    series = world.receive()
    Series.objects.filter(pk=series.pk).delete()
    check_visit(visit_id=world.visit.pk)

    assert state_of(dashboard.subject_visit_grid(sponsor, world.trial), world.visit) == "deviant"


def test_a_coordinator_sees_the_own_site_in_every_figure(world):
    own = SiteFactory(trial=world.trial)
    user = MembershipFactory(trial=world.trial, role=Role.SITE_COORDINATOR, site=own).user
    visit = subject_visit(world, own)
    world.check(RepetitionTime=2400.0)
    world.check(visit=visit, FlipAngle=20.0)

    grid = dashboard.subject_visit_grid(user, world.trial)
    cards = dashboard.site_scorecards(user, world.trial)
    bars = dashboard.deviation_pareto(user, world.trial)
    summary = dashboard.trial_summary(user, world.trial)
    steps = dashboard.what_next(user, world.trial)

    assert [row.subject_code for row in grid.rows] == [visit.subject.code]
    assert [card.site_code for card in cards] == [own.code]
    assert [bar.parameter for bar in bars] == ["FlipAngle"]
    assert summary["series"] == {"checked": 1}
    assert summary["open_deviations"] == {"major": 1}
    assert steps.counts["deviations"] == 1
    assert steps.counts["queries"] == 1


def test_the_scorecard_counts_what_was_accepted_as_first_sent(world, sponsor):
    good, bad = subject_visit(world), subject_visit(world)
    world.check(visit=good)
    world.check(visit=bad, RepetitionTime=2400.0)
    world.check(visit=bad, minutes=1)

    (card,) = dashboard.site_scorecards(sponsor, world.trial)

    assert (card.visits, card.first_pass, card.first_pass_percent) == (2, 1, 50.0)
    assert (card.series_received, card.submissions) == (3, 3)
    assert (card.deviations, card.open_deviation_count, card.open_queries) == (1, 0, 0)
    assert card.protocol_outcomes == {"compliant": 2, "deviant": 0, "not_evaluable": 0}
    assert card.qc_outcomes["not_evaluable"] == 2
    assert card.deviation_turnaround_h is not None
    assert card.check_turnaround_s is not None


def test_the_pareto_orders_and_accumulates(world, sponsor):
    for _ in range(3):
        world.check(visit=subject_visit(world), RepetitionTime=2400.0)
    world.check(visit=subject_visit(world), PixelBandwidth=100.0)

    bars = dashboard.deviation_pareto(sponsor, world.trial)

    assert [(bar.parameter, bar.count, bar.cumulative_percent) for bar in bars] == [
        ("RepetitionTime", 3, 75.0), ("PixelBandwidth", 1, 100.0),
    ]  # fmt: skip
    assert bars[0].by_site == {world.visit.site.code: 3}


def test_what_is_next_names_the_first_visit_without_images(world, sponsor):
    VisitDefinitionFactory(trial=world.trial, code="month-12", position=1, target_day=365)
    world.check()
    waiting = SubjectFactory(site=world.visit.site)

    steps = dashboard.what_next(sponsor, world.trial)

    found = {item.subject_code: item.visit_code for item in steps.expected_visits}
    assert found == {world.visit.subject.code: "month-12", waiting.code: "baseline"}


def scanned(world, values, *, epochs=None):
    scanner = ScannerFactory(site=world.visit.site)
    first = ScannerEpochFactory(scanner=scanner, number=1)
    second = ScannerEpochFactory(scanner=scanner, number=2)
    visit = subject_visit(world)
    series = None
    for place, value in enumerate(values):
        epoch = second if epochs and place >= epochs else first
        series = world.receive(visit=visit, minutes=place, scanner=scanner, scanner_epoch=epoch)
        Series.objects.filter(pk=series.pk).update(state=SeriesState.CHECKED)
        MetricValueFactory(series=series, value=value, scanner=scanner)
    SeriesCheckFactory(series=series, expected_key="t1", metrics=[{"name": "snr_residual"}])
    return scanner, series


_STEADY = [20.0 + 0.1 * ((7 * place) % 11 - 5) for place in range(21)]


def test_a_shift_after_twenty_scans_raises_each_alert_once(world):
    scanner, series = scanned(world, [*_STEADY, 25.0])

    opened = drift.assess_series(series_id=series.pk)
    again = drift.assess_series(series_id=series.pk)

    assert "1_3s" in {row.chart for row in opened}
    assert {row.direction for row in opened} == {"up"}
    assert {row.signalled_by_id for row in opened} == {series.pk}
    assert again == []
    assert DriftAlert.objects.filter(scanner=scanner).count() == len(opened)


def test_a_software_change_begins_a_new_baseline_instead_of_an_alert(world):
    _, series = scanned(world, [*_STEADY, 25.0], epochs=21)

    assert drift.assess_series(series_id=series.pk) == []


def test_few_values_raise_nothing(world):
    _, series = scanned(world, [20.0, 20.1, 19.9, 20.0, 90.0])

    assert drift.assess_series(series_id=series.pk) == []


def test_a_steady_scanner_raises_nothing(world):
    _, series = scanned(world, _STEADY)

    assert drift.assess_series(series_id=series.pk) == []


def test_the_distribution_of_a_metric_per_scanner(world, sponsor):
    scanner, _ = scanned(world, [10.0, 20.0, 30.0])

    found = dashboard.metric_distribution(sponsor, world.trial, name="snr_residual", expected_key="t1")

    (row,) = found.scanners
    assert row.scanner_id == scanner.pk
    assert [point.value for point in row.points] == [10.0, 20.0, 30.0]
    assert row.quantiles[50] == 20.0
    assert not found.truncated


def statements(function) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        function()
    return len(captured)


def test_figures_cost_the_same_however_many_rows_there_are(world, sponsor):
    figures = [
        lambda: dashboard.subject_visit_grid(sponsor, world.trial),
        lambda: dashboard.site_scorecards(sponsor, world.trial),
        lambda: dashboard.deviation_pareto(sponsor, world.trial),
        lambda: dashboard.trial_summary(sponsor, world.trial),
        lambda: dashboard.what_next(sponsor, world.trial),
    ]
    world.check(RepetitionTime=2400.0)
    few = [statements(figure) for figure in figures]
    for _ in range(5):
        world.check(visit=subject_visit(world, SiteFactory(trial=world.trial)), RepetitionTime=2400.0)

    many = [statements(figure) for figure in figures]

    assert many == few
    assert max(many) <= 30


def test_nobody_else_sees_anything(world):
    stranger = MembershipFactory().user
    world.check(pixels=True)

    assert dashboard.subject_visit_grid(stranger, world.trial).rows == ()
    assert dashboard.site_scorecards(stranger, world.trial) == ()
    assert dashboard.deviation_pareto(stranger, world.trial) == ()
    assert dashboard.trial_summary(stranger, world.trial)["series"] == {}
    assert MetricValue.objects.visible_to(stranger).count() == 0
    assert Deviation.objects.visible_to(stranger).count() == 0


def test_values_keep_the_order_of_receipt_within_an_epoch(world):
    scanner, _ = scanned(world, [1.0, 2.0, 3.0, 4.0], epochs=2)

    points = drift.points_of(scanner_id=scanner.pk, expected_key="t1", names=["snr_residual"])

    assert [(point.value, point.epoch) for point in points["snr_residual"]] == [
        (1.0, 1), (2.0, 1), (3.0, 2), (4.0, 2),
    ]  # fmt: skip
    assert points["snr_residual"][1].received_at - points["snr_residual"][0].received_at > timedelta(
        seconds=30
    )
