"""Who takes part in a trial: read, give a role, end one."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from hub.core.audit.models import AuditEvent
from sites_app.models import LockState, Membership, Role, Trial
from tests.factories.sites_app import MembershipFactory, SiteFactory, TrialFactory, UserFactory


@pytest.fixture
def trial(db):
    return TrialFactory(code="PEOPLE")


def client_for(trial, role, site=None) -> Client:
    client = Client()
    client.force_login(MembershipFactory(trial=trial, role=role, site=site).user)
    return client


def add(client, **values):
    return client.post(reverse("trial-people-add", args=["PEOPLE"]), values)


READERS = {Role.TRIAL_ADMINISTRATOR, Role.DATA_MANAGER, Role.MONITOR, Role.AUDITOR}


@pytest.mark.parametrize("role", list(Role))
def test_who_reads_and_who_changes(trial, role):
    site = SiteFactory(trial=trial) if role == Role.SITE_COORDINATOR else None
    client = client_for(trial, role, site)
    newcomer = UserFactory()

    assert client.get(reverse("trial-people", args=["PEOPLE"])).status_code == (
        200 if role in READERS else 403
    )
    answer = add(client, username=newcomer.username, role=Role.AUDITOR)
    assert answer.status_code == (302 if role == Role.TRIAL_ADMINISTRATOR else 403)
    assert newcomer.memberships.exists() == (role == Role.TRIAL_ADMINISTRATOR)


def test_a_role_is_given_ended_and_given_again(trial):
    admin = client_for(trial, Role.TRIAL_ADMINISTRATOR)
    site = SiteFactory(trial=trial, code="S01")
    person = UserFactory(username="newcomer")

    add(admin, username="newcomer", role=Role.SITE_COORDINATOR, site="S01")
    row = Membership.objects.get(user=person)
    twice = add(admin, username="newcomer", role=Role.SITE_COORDINATOR, site="S01")
    ended = admin.post(reverse("trial-people-end", args=["PEOPLE", row.pk]))
    row.refresh_from_db()
    assert (row.site, row.is_active, twice.status_code, ended.status_code) == (site, False, 409, 302)
    add(admin, username="newcomer", role=Role.SITE_COORDINATOR, site="S01")

    row.refresh_from_db()
    assert row.is_active and Membership.objects.filter(user=person).count() == 1
    actions = (
        AuditEvent.objects.filter(object_id=str(row.pk)).order_by("sequence").values_list("action", flat=True)
    )
    assert list(actions) == ["membership.created", "membership.ended", "membership.given_again"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"username": "nobody", "role": "auditor"}, "username"),
        ({"username": "known", "role": "emperor"}, "role"),
        ({"username": "known", "role": "site_coordinator"}, "site"),
        ({"username": "known", "role": "sponsor", "site": "S01"}, "site"),
        ({"username": "known", "role": "monitor", "site": "S99"}, "site"),
    ],
)
def test_a_faulty_request_names_its_field_and_gives_nothing(trial, values, field):
    admin = client_for(trial, Role.TRIAL_ADMINISTRATOR)
    SiteFactory(trial=trial, code="S01")
    UserFactory(username="known")

    answer = add(admin, **values)

    assert answer.status_code == 400
    assert f"<code>{field}</code>" in answer.content.decode()
    assert Membership.objects.count() == 1


def test_a_locked_trial_takes_no_people(trial):
    admin = client_for(trial, Role.TRIAL_ADMINISTRATOR)
    UserFactory(username="known")
    Trial.objects.filter(pk=trial.pk).update(lock_state=LockState.LOCKED)

    assert add(admin, username="known", role=Role.AUDITOR).status_code == 409
    assert "Give the role" not in admin.get(reverse("trial-people", args=["PEOPLE"])).content.decode()


def test_a_member_of_another_trial_is_out_of_reach(trial):
    admin = client_for(trial, Role.TRIAL_ADMINISTRATOR)
    foreign = MembershipFactory(role=Role.AUDITOR)

    assert admin.post(reverse("trial-people-end", args=["PEOPLE", foreign.pk])).status_code == 404
    foreign.refresh_from_db()
    assert foreign.is_active
