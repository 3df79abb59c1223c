"""Pages of sites: who sees what, and what the forms do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

from qc_app.models import Deviation, Query
from sites_app.models import Role, Site, Trial
from tests.factories.qc_app import DeviationFactory, ProtocolFactory, QueryFactory, SeriesCheckFactory
from tests.factories.sites_app import PASSWORD, MembershipFactory, SiteFactory, SubjectFactory, TrialFactory

pytestmark = pytest.mark.django_db


@dataclass
class World:
    trial: Trial
    site: Site
    deviation: Deviation
    query: Query

    def as_role(self, role: str, site: Site | None = None) -> Client:
        client = Client()
        client.force_login(MembershipFactory(trial=self.trial, site=site, role=role).user)
        return client

    def path(self, rest: str = "") -> str:
        return f"/t/{self.trial.code}/{rest}"

    @property
    def details(self) -> list[str]:
        found = self.deviation
        return [
            self.path(f"deviations/{found.pk}/"),
            self.path(f"queries/{self.query.pk}/"),
            self.path(f"series/{found.series_id}/"),
            self.path(f"submissions/{found.series.submission_id}/"),  # type: ignore[union-attr]
            self.path(f"submissions/{found.series.submission_id}/series/"),  # type: ignore[union-attr]
        ]


@pytest.fixture
def world() -> World:
    trial = TrialFactory()
    site = SiteFactory(trial=trial)
    protocol = ProtocolFactory(trial=trial, locked=True)
    deviation = DeviationFactory(
        series__study__visit__subject=SubjectFactory(site=site),
        series__study__visit__definition__trial=trial,
        series__submission__profile__trial=trial,
        protocol=protocol,
    )
    SeriesCheckFactory(
        series=deviation.series,
        protocol=protocol,
        protocol_digest=protocol.digest,
        protocol_outcome="deviant",
        verdicts=[deviation.verdict],
    )
    return World(trial, site, deviation, QueryFactory(deviation=deviation))


LISTS = ["", "submissions/", "series/", "deviations/", "queries/"]


@pytest.mark.parametrize("rest", LISTS)
def test_a_site_sees_its_own_lists(world: World, rest: str) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, world.site)

    answer = client.get(world.path(rest))

    assert answer.status_code == 200
    assert world.deviation.subject.code in answer.content.decode()


def test_another_site_sees_nothing_of_it(world: World) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, SiteFactory(trial=world.trial))

    assert [client.get(path).status_code for path in world.details] == [404] * len(world.details)
    for rest in LISTS:
        assert world.deviation.subject.code not in client.get(world.path(rest)).content.decode()


@pytest.mark.parametrize("role", [role for role in Role.values if role != Role.SITE_COORDINATOR])
def test_every_role_of_the_whole_trial_reads_the_details(world: World, role: str) -> None:
    client = world.as_role(role)

    assert [client.get(path).status_code for path in world.details] == [200] * len(world.details)


def test_the_series_page_shows_what_is_wanted_beside_what_was_found(world: World) -> None:
    page = (
        world.as_role(Role.MONITOR).get(world.path(f"series/{world.deviation.series_id}/")).content.decode()
    )

    assert "2300 ± 10 ms" in page
    assert "2400 ms" in page
    assert world.deviation.protocol.digest in page
    assert "Set it to 2300 ms." in page


def test_a_sponsor_reads_no_names_of_staff(world: World) -> None:
    sender = world.deviation.series.submission.created_by  # type: ignore[union-attr]
    path = world.path(f"submissions/{world.deviation.series.submission_id}/")  # type: ignore[union-attr]

    assert str(sender) not in world.as_role(Role.SPONSOR).get(path).content.decode()
    assert str(sender) in world.as_role(Role.DATA_MANAGER).get(path).content.decode()


@pytest.mark.parametrize("act", ["acknowledge", "waive", "resolve", "reject"])
def test_roles_that_read_can_not_act_on_a_deviation(world: World, act: str) -> None:
    form = {"reason": "no", "scope": "series", "password": PASSWORD, "meaning": "no"}

    answer = world.as_role(Role.SPONSOR).post(world.path(f"deviations/{world.deviation.pk}/{act}/"), form)

    assert answer.status_code == 403
    world.deviation.refresh_from_db()
    assert world.deviation.state == "open"


def test_a_site_acknowledges_and_does_not_decide(world: World) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, world.site)
    path = world.path(f"deviations/{world.deviation.pk}/")

    refused = client.post(f"{path}resolve/", {"reason": "done"})
    accepted = client.post(f"{path}acknowledge/", {"reason": "seen"})

    assert (refused.status_code, accepted.status_code) == (403, 302)
    world.deviation.refresh_from_db()
    assert (world.deviation.state, world.deviation.reason) == ("acknowledged", "seen")
    assert "Sign and waive" not in client.get(path).content.decode()


def test_a_waiver_with_a_day_that_is_none_is_refused_in_words(world: World) -> None:
    form = {
        "reason": "ok",
        "scope": "series",
        "password": PASSWORD,
        "meaning": "ok",
        "expires_on": "tomorrow",
    }

    answer = world.as_role(Role.DATA_MANAGER).post(
        world.path(f"deviations/{world.deviation.pk}/waive/"), form, headers={"HX-Request": "true"}
    )

    assert answer.status_code == 400
    assert "year-month-day" in answer.content.decode()


def test_a_monitor_asks_for_a_new_scan_with_the_values_to_set(world: World) -> None:
    client = world.as_role(Role.MONITOR)

    answer = client.post(
        world.path(f"series/{world.deviation.series_id}/query/"),
        {"rescan": "yes", "text": "Before the next visit."},
        headers={"HX-Request": "true"},
    )

    query = Query.objects.get(is_rescan_request=True)
    assert answer["HX-Redirect"] == world.path(f"queries/{query.pk}/")
    assert "2300 ± 10 ms" in query.text
    assert "Before the next visit." in query.text


def test_an_unknown_act_is_not_found(world: World) -> None:
    client = world.as_role(Role.DATA_MANAGER)

    assert client.post(world.path(f"deviations/{world.deviation.pk}/forget/")).status_code == 404
    assert client.post(world.path(f"queries/{world.query.pk}/forget/")).status_code == 404
    assert client.get(world.path(f"queries/{world.query.pk}/close/")).status_code == 405


@pytest.mark.parametrize("rest", ["submissions/", "series/", "deviations/", "queries/"])
def test_lists_export_csv_of_the_chosen_filter(world: World, rest: str) -> None:
    client = world.as_role(Role.MONITOR)

    def lines(**query: Any) -> list[str]:
        answer = client.get(world.path(rest), {"format": "csv", **query})
        return b"".join(answer).decode().splitlines()

    assert len(lines()) == 2
    assert world.deviation.subject.code in lines(subject=world.deviation.subject.code)[1]
    assert len(lines(subject="nobody")) == 1


@pytest.mark.parametrize(
    ("query", "shown"),
    [({"protocol": "deviant"}, True), ({"protocol": "compliant"}, False), ({"quality": "pass"}, False)],
)
def test_series_are_kept_to_an_outcome(world: World, query: dict[str, str], shown: bool) -> None:
    page = world.as_role(Role.MONITOR).get(world.path("series/"), query).content.decode()

    assert (world.deviation.subject.code in page) is shown
