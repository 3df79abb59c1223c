"""Deviations and queries: every state by every action, who may, and what follows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, InvalidInput, NotAllowed
from hub.core.models import ElectronicSignature
from hub.core.signatures.services import SignatureRefused
from qc_app.models import Deviation, DeviationState, Query, QueryState
from qc_app.models.deviation import DEVIATION_TRANSITIONS, QUERY_TRANSITIONS
from qc_app.services import deviation as deviations
from qc_app.services import query as queries
from qc_app.services.check import check_series
from sites_app.models import Role, Series, SeriesState
from tests.factories.qc_app import DeviationFactory, QueryFactory
from tests.factories.sites_app import PASSWORD, MembershipFactory, SiteFactory

_ACTS = {
    "acknowledged": lambda user, row: deviations.acknowledge(actor=user, deviation=row),
    "resolved": lambda user, row: deviations.resolve(actor=user, deviation=row, reason="Done"),
    "rejected": lambda user, row: deviations.reject(actor=user, deviation=row, reason="None"),
    "waived": lambda user, row: deviations.waive(
        actor=user, deviation=row, reason="Accepted", scope="series", password=PASSWORD, meaning="I accept"
    ),
}
_QUERY_ACTS = {
    "answered": lambda user, row: queries.answer_query(actor=user, query=row, text="Answer"),
    "open": lambda user, row: queries.reopen_query(actor=user, query=row, text="Again"),
    "closed": lambda user, row: queries.close_query(actor=user, query=row, reason="Clear"),
}


def member(trial, role, site=None):
    return MembershipFactory(trial=trial, role=role, site=site).user


def in_state(state: str) -> Deviation:
    extra = {}
    if state not in ("open", "acknowledged"):
        closer = MembershipFactory().user
        extra = {
            "closed_at": timezone.now(),
            "closed_by": closer,
            "waiver": {"scope": "series", "expires_on": None},
        }
    return DeviationFactory(state=state, **extra)


@pytest.mark.django_db
@pytest.mark.parametrize("state", DeviationState.values)
@pytest.mark.parametrize("act", list(_ACTS))
def test_every_deviation_state_by_every_action(state, act):
    row = in_state(state)
    user = member(row.trial, Role.DATA_MANAGER)

    if act in DEVIATION_TRANSITIONS[state]:
        assert _ACTS[act](user, row).state == act
        assert AuditEvent.objects.filter(action=f"deviation.{act}", object_id=str(row.pk)).count() == 1
    else:
        with pytest.raises(Conflict):
            _ACTS[act](user, row)
        row.refresh_from_db()
        assert row.state == state


@pytest.mark.django_db
@pytest.mark.parametrize("state", QueryState.values)
@pytest.mark.parametrize("act", list(_QUERY_ACTS))
def test_every_query_state_by_every_action(state, act):
    row = QueryFactory(state=state)
    user = member(row.trial, Role.DATA_MANAGER)

    if act in QUERY_TRANSITIONS[state]:
        assert _QUERY_ACTS[act](user, row).state == act
    else:
        with pytest.raises(Conflict):
            _QUERY_ACTS[act](user, row)
        row.refresh_from_db()
        assert row.state == state


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role.values)
@pytest.mark.parametrize("act", list(_ACTS))
def test_who_may_do_what_to_a_deviation(role, act):
    row = DeviationFactory()
    user = member(row.trial, role, row.site if role == Role.SITE_COORDINATOR else None)
    deciders = {Role.DATA_MANAGER, Role.TRIAL_ADMINISTRATOR}
    allowed = deciders | ({Role.SITE_COORDINATOR, Role.MONITOR} if act == "acknowledged" else set())

    if role in allowed:
        assert _ACTS[act](user, row).state == act
    else:
        with pytest.raises(NotAllowed):
            _ACTS[act](user, row)


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role.values)
def test_who_may_ask_answer_and_close(role):
    query = QueryFactory()
    user = member(query.trial, role, query.site if role == Role.SITE_COORDINATOR else None)
    management = {Role.DATA_MANAGER, Role.TRIAL_ADMINISTRATOR}
    askers = management | {Role.MONITOR, Role.IMAGING_REVIEWER}
    about = queries.About.deviation_(query.deviation)

    for act, allowed in (
        (lambda: queries.raise_query(actor=user, about=about, title="T", text="X"), askers),
        (
            lambda: queries.answer_query(actor=user, query=query, text="A"),
            management | {Role.SITE_COORDINATOR},
        ),
        (lambda: queries.close_query(actor=user, query=query, reason="R"), askers),
    ):
        if role in allowed:
            act()
        else:
            with pytest.raises(NotAllowed):
                act()


@pytest.mark.django_db
def test_a_coordinator_of_another_site_may_not_acknowledge():
    row = DeviationFactory()
    other = SiteFactory(trial=row.trial)

    with pytest.raises(NotAllowed):
        deviations.acknowledge(actor=member(row.trial, Role.SITE_COORDINATOR, other), deviation=row)


@pytest.mark.django_db
def test_a_waiver_is_signed_with_its_digest():
    row = DeviationFactory()
    user = member(row.trial, Role.DATA_MANAGER)
    until = timezone.now().date() + timedelta(days=30)

    waived = deviations.waive(
        actor=user, deviation=row, reason="Accepted", scope="scanner" if row.scanner else "visit",
        password=PASSWORD, meaning="I accept this deviation", expires_on=until,
    )  # fmt: skip

    signature = ElectronicSignature.objects.get(object_id=str(row.pk))
    assert waived.signature == signature
    assert (signature.signer, signature.meaning) == (user, "I accept this deviation")
    assert waived.waiver == {"scope": "visit", "expires_on": until.isoformat()}
    assert waived.closed_by == user


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"password": "wrong"}, SignatureRefused),
        ({"meaning": " "}, InvalidInput),
        ({"reason": ""}, InvalidInput),
        ({"scope": "world"}, InvalidInput),
        ({"scope": "scanner"}, InvalidInput),
        ({"expires_on": timezone.now().date() - timedelta(days=1)}, InvalidInput),
    ],
)
def test_an_incomplete_waiver_is_refused(change, error):
    row = DeviationFactory()
    wanted = {"reason": "R", "scope": "series", "password": PASSWORD, "meaning": "M", **change}

    with pytest.raises(error):
        deviations.waive(actor=member(row.trial, Role.DATA_MANAGER), deviation=row, **wanted)

    row.refresh_from_db()
    assert row.state == DeviationState.OPEN
    assert not ElectronicSignature.objects.filter(object_id=str(row.pk)).exists()


@pytest.mark.django_db
def test_a_decision_closes_the_open_system_query_but_not_the_answered_or_the_persons():
    row = DeviationFactory()
    user = member(row.trial, Role.DATA_MANAGER)
    system = QueryFactory(deviation=row)
    answered = QueryFactory(deviation=row, state=QueryState.ANSWERED)
    persons = QueryFactory(deviation=row, raised_by=user)

    deviations.resolve(actor=user, deviation=row, reason="Explained")

    states = [Query.objects.get(pk=query.pk).state for query in (system, answered, persons)]
    assert states == ["closed", "answered", "open"]


def recheck(series: Series) -> None:
    Series.objects.filter(pk=series.pk).update(state=SeriesState.RECEIVED)
    check_series(series_id=series.pk)


def test_a_persons_decision_stands_while_the_finding_is_the_same(world):
    series = world.check(RepetitionTime=2400.0)
    user = member(world.trial, Role.DATA_MANAGER)
    deviations.reject(actor=user, deviation=Deviation.objects.get(), reason="Known")

    recheck(series)
    assert Deviation.objects.count() == 1

    other = world.receive(RepetitionTime=2500.0).observation
    Series.objects.filter(pk=series.pk).update(observation=other)
    recheck(series)
    assert sorted(Deviation.objects.filter(rule="tr").values_list("state", flat=True)) == ["open", "rejected"]


def test_a_waiver_reaches_the_same_finding_in_its_scope_only(world):
    world.check(RepetitionTime=2400.0)
    user = member(world.trial, Role.DATA_MANAGER)
    deviations.waive(
        actor=user, deviation=Deviation.objects.get(rule="tr"), reason="Scanner limit", scope="site",
        password=PASSWORD, meaning="I accept",
    )  # fmt: skip

    same = world.check(minutes=1, RepetitionTime=2400.0)
    other = world.check(minutes=2, RepetitionTime=2500.0)

    assert Deviation.objects.get(series=same, rule="tr").state == DeviationState.WAIVED
    assert Deviation.objects.get(series=other, rule="tr").state == DeviationState.OPEN


def test_an_expired_waiver_opens_the_deviation_again_once(world):
    world.check(RepetitionTime=2400.0)
    user = member(world.trial, Role.DATA_MANAGER)
    today = timezone.now().date()
    waived = deviations.waive(
        actor=user, deviation=Deviation.objects.get(rule="tr"), reason="For now", scope="series",
        password=PASSWORD, meaning="I accept", expires_on=today,
    )  # fmt: skip
    assert deviations.expire_waivers() == 0
    Deviation.objects.filter(pk=waived.pk).update(
        waiver={"scope": "series", "expires_on": (today - timedelta(days=1)).isoformat()}
    )

    assert deviations.expire_waivers() == 1
    assert deviations.expire_waivers() == 0

    assert Deviation.objects.filter(rule="tr", state=DeviationState.OPEN).count() == 1


def test_a_rescan_request_names_the_values_to_set(world):
    series = world.check(RepetitionTime=2400.0, FlipAngle=None)
    user = member(world.trial, Role.MONITOR)

    query = queries.request_rescan(actor=user, series=series, comment="Before Friday.")

    assert query.is_rescan_request
    assert "- TR (0018,0000): 2300 ± 10 ms (this series: 2400 ms)" in query.text
    assert "(this series: not recorded)" in query.text
    assert query.text.endswith("Before Friday.")


def test_a_rescan_request_of_a_compliant_series_is_refused(world):
    series = world.check()

    with pytest.raises(Conflict):
        queries.request_rescan(actor=member(world.trial, Role.MONITOR), series=series)
