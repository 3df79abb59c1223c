"""Protocols and QC profiles: drafting, locking, amending, trying out."""

from __future__ import annotations

import json

import pytest
from django.db import InternalError, transaction

from hub.core.errors import Conflict, HubError, InvalidInput, NotAllowed
from hub.core.signatures.services import SignatureRefused
from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.models import Deviation, Protocol, QCProfile, SeriesCheck, VersionState
from qc_app.services import protocol as protocols
from qc_app.services import qc_profile as profiles
from qc_app.services.check import check_series, request_recheck
from qc_app.tasks import sweep_unchecked_series
from sites_app.models import Role, SeriesState
from sites_app.services.trial_file import apply_trial
from tests.factories.qc_app import ProtocolFactory, QCProfileFactory, protocol_document
from tests.factories.sites_app import (
    PASSWORD,
    MembershipFactory,
    SiteFactory,
    TrialFactory,
    VisitDefinitionFactory,
)


@pytest.fixture
def administrator(world):
    return MembershipFactory(trial=world.trial, role=Role.TRIAL_ADMINISTRATOR).user


def tighter() -> dict:
    document = protocol_document()
    document["series"][0]["rules"][1]["value"] = 15
    return document


def test_amending_and_locking_supersedes_and_judges_nothing_again(world, administrator):
    series = world.check()
    draft = protocols.amend_protocol(actor=administrator, row=world.protocol, reason="Flip angle")
    draft = protocols.update_draft(actor=administrator, row=draft, document=tighter())

    locked = protocols.lock_protocol(
        actor=administrator, row=draft, password=PASSWORD, meaning="I approve this protocol"
    )

    assert (locked.state, locked.version, locked.signature.signer) == ("locked", 2, administrator)
    assert Protocol.objects.get(pk=world.protocol.pk).state == VersionState.SUPERSEDED
    assert sweep_unchecked_series() == 0
    check = SeriesCheck.objects.get(series=series)
    assert (check.protocol_outcome, check.protocol_digest) == ("compliant", world.protocol.digest)


def test_locking_the_first_protocol_judges_what_was_never_judged(make_world):
    world = make_world(locked=False)
    administrator = MembershipFactory(trial=world.trial, role=Role.TRIAL_ADMINISTRATOR).user
    series = world.check(RepetitionTime=2400.0)

    protocols.lock_protocol(actor=administrator, row=world.protocol, password=PASSWORD, meaning="I approve")

    series.refresh_from_db()
    assert series.state == SeriesState.RECEIVED
    assert sweep_unchecked_series() == 1
    check_series(series_id=series.pk)
    assert Deviation.objects.get(series=series).rule == "tr"


@pytest.mark.parametrize("role", Role.values)
def test_only_the_trial_administrator_locks(make_world, role):
    world = make_world(locked=False)
    site = world.visit.site if role == Role.SITE_COORDINATOR else None
    user = MembershipFactory(trial=world.trial, role=role, site=site).user

    if role == Role.TRIAL_ADMINISTRATOR:
        protocols.lock_protocol(actor=user, row=world.protocol, password=PASSWORD, meaning="I approve")
    else:
        with pytest.raises(NotAllowed):
            protocols.lock_protocol(actor=user, row=world.protocol, password=PASSWORD, meaning="I approve")


def test_a_data_manager_of_one_site_drafts_nothing_for_the_trial(world):
    user = MembershipFactory(trial=world.trial, role=Role.DATA_MANAGER, site=world.visit.site).user

    with pytest.raises(NotAllowed):
        protocols.amend_protocol(actor=user, row=world.protocol, reason="Mine")


def test_locking_needs_the_right_password(make_world):
    world = make_world(locked=False)
    user = MembershipFactory(trial=world.trial, role=Role.TRIAL_ADMINISTRATOR).user

    with pytest.raises(SignatureRefused):
        protocols.lock_protocol(actor=user, row=world.protocol, password="wrong", meaning="I approve")
    with pytest.raises(InvalidInput):
        protocols.lock_protocol(actor=user, row=world.protocol, password=PASSWORD, meaning="")

    world.protocol.refresh_from_db()
    assert world.protocol.state == VersionState.DRAFT


@pytest.mark.parametrize("service", [protocols, profiles])
def test_a_locked_version_cannot_be_changed_discarded_or_locked_again(world, administrator, service):
    row = world.protocol if service is protocols else world.profile
    lock = protocols.lock_protocol if service is protocols else profiles.lock_profile

    with pytest.raises(Conflict):
        service.update_draft(actor=administrator, row=row, title="Other")
    with pytest.raises(Conflict):
        service.discard_draft(actor=administrator, row=row)
    with pytest.raises(Conflict):
        lock(actor=administrator, row=row, password=PASSWORD, meaning="Again")


@pytest.mark.django_db
@pytest.mark.parametrize("factory", [ProtocolFactory, QCProfileFactory])
@pytest.mark.parametrize("column", ["document", "digest", "title", "version"])
def test_the_database_refuses_to_change_a_locked_version(factory, column):
    row = factory(locked=True)
    value = {"document": {}, "digest": "0" * 64, "title": "x", "version": 9}[column]

    with pytest.raises(InternalError, match="hub: A locked version cannot be changed"), transaction.atomic():
        type(row).objects.filter(pk=row.pk).update(**{column: value})
    with pytest.raises(InternalError, match="hub: A locked version cannot be deleted"), transaction.atomic():
        type(row).objects.filter(pk=row.pk).delete()


def test_an_invalid_document_names_each_fault_by_pointer(world, administrator):
    document = protocol_document()
    document["series"][0]["rules"][0]["tolerance"] = -1
    document["series"][1]["visits"] = ["nowhere"]
    draft = protocols.amend_protocol(actor=administrator, row=world.protocol, reason="Fix")

    with pytest.raises(InvalidInput) as refusal:
        protocols.update_draft(actor=administrator, row=draft, document=document)

    assert {error["field"] for error in refusal.value.errors} >= {"/series/0/rules/0/tolerance"}
    draft.refresh_from_db()
    assert draft.digest == world.protocol.digest


def test_a_second_draft_is_refused(world, administrator):
    protocols.amend_protocol(actor=administrator, row=world.protocol, reason="One")

    with pytest.raises(Conflict):
        protocols.amend_protocol(actor=administrator, row=world.protocol, reason="Two")


def test_an_amendment_needs_a_reason(world, administrator):
    with pytest.raises(InvalidInput):
        protocols.amend_protocol(actor=administrator, row=world.protocol, reason=" ")


def test_a_dry_run_counts_and_names_changes_and_writes_nothing(world, administrator):
    series = world.check()
    world.check(minutes=1, FlipAngle=15.0)
    draft = protocols.amend_protocol(actor=administrator, row=world.protocol, reason="Flip angle")
    draft = protocols.update_draft(actor=administrator, row=draft, document=tighter())
    before = (SeriesCheck.objects.count(), Deviation.objects.count())

    result = protocols.dry_run(actor=administrator, row=draft)

    assert result.series == 2
    assert result.before == {"compliant": 1, "deviant": 1}
    assert result.after == {"compliant": 1, "deviant": 1}
    assert result.changed == 2
    change = next(item for item in result.changes if item.series == str(series.pk))
    assert (change.before, change.after, change.findings_after) == ("compliant", "deviant", ("flip",))
    assert (SeriesCheck.objects.count(), Deviation.objects.count()) == before


def test_a_profile_dry_run_judges_stored_metrics(world, administrator):
    world.check(pixels=True)
    draft = profiles.amend_profile(actor=administrator, row=world.profile, reason="Stricter")
    document = {**DEFAULT_PROFILE, "modalities": {"MR": [{"metric": "slice_count", "fail": {"min": 100}}]}}
    draft = profiles.update_draft(actor=administrator, row=draft, document=document)

    result = profiles.dry_run(actor=administrator, row=draft)

    assert result.after == {"fail": 1}
    assert result.changes[0].findings_after == ("slice_count",)


def test_a_profile_for_an_unknown_series_is_not_locked(world, administrator):
    draft = profiles.amend_profile(actor=administrator, row=world.profile, reason="By series")
    document = {**DEFAULT_PROFILE, "series": {"t9": [{"metric": "slice_count", "fail": {"min": 1}}]}}
    draft = profiles.update_draft(actor=administrator, row=draft, document=document)

    with pytest.raises(InvalidInput, match="t9"):
        profiles.lock_profile(actor=administrator, row=draft, password=PASSWORD, meaning="I approve")


def test_importing_a_reference_series_drafts_rules_it_complies_with(world, administrator):
    series = world.check()
    draft = protocols.amend_protocol(actor=administrator, row=world.protocol, reason="Second T1")

    draft = protocols.import_series(
        actor=administrator, row=draft, series=series, key="t1b", title="T1, second"
    )

    captured = next(item for item in draft.document["series"] if item["key"] == "t1b")
    rules = {rule.get("parameter"): rule for rule in captured["rules"]}
    assert rules["RepetitionTime"]["value"] == 2300
    with pytest.raises(Conflict):
        protocols.import_series(actor=administrator, row=draft, series=series, key="t1b", title="Again")


def test_importing_a_template_adds_its_series(world, administrator):
    draft = protocols.amend_protocol(actor=administrator, row=world.protocol, reason="FLAIR")

    draft = protocols.import_template(actor=administrator, row=draft, name="fdg-pet")

    assert len(draft.document["series"]) == 3
    with pytest.raises(HubError):
        protocols.import_template(actor=administrator, row=draft, name="nothing")


def test_a_recheck_judges_by_the_version_in_force_and_says_why(world, administrator):
    series = world.check()
    draft = protocols.amend_protocol(actor=administrator, row=world.protocol, reason="Flip angle")
    draft = protocols.update_draft(actor=administrator, row=draft, document=tighter())
    protocols.lock_protocol(actor=administrator, row=draft, password=PASSWORD, meaning="I approve")

    request_recheck(actor=administrator, series=series, reason="Amended protocol")
    check_series(series_id=series.pk)

    assert SeriesCheck.objects.get(series=series, is_current=True).protocol_digest == draft.digest
    assert Deviation.objects.get(series=series).rule == "flip"


@pytest.mark.django_db
def test_a_trial_file_drafts_protocol_and_profile_and_is_idempotent():
    trial = TrialFactory()
    SiteFactory(trial=trial)
    VisitDefinitionFactory(trial=trial, code="baseline")
    content = json.dumps(
        {
            "trial": {"code": trial.code, "title": trial.title},
            "protocol": protocol_document(),
            "qc_profile": {**DEFAULT_PROFILE, "modalities": {}},
        }
    )

    _, first = apply_trial(actor=None, content=content, name="trial.json")
    _, second = apply_trial(actor=None, content=content, name="trial.json")

    assert [change.what for change in first] == ["draft protocol", "draft QC profile"]
    assert second == []
    assert Protocol.objects.get(trial=trial).state == VersionState.DRAFT
    assert QCProfile.objects.get(trial=trial).state == VersionState.DRAFT
