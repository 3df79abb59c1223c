"""Trial files: idempotent, whole or not at all, and every fault with its file, line and field."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError, call_command

from hub.core.audit.models import AuditEvent
from hub.core.models import User
from hub.demo.trial import PASSWORD_VARIABLE, trial_document
from qc_app.models import Protocol
from sites_app.models import Membership, Role, Site, Subject, Trial
from sites_app.services.trial_file import TrialFileInvalid, apply_trial
from tests.factories.sites_app import MembershipFactory, TrialFactory, UserFactory

pytestmark = pytest.mark.django_db

SMALL = """trial: {code: T1, title: First}
arms:
  - {code: A, title: Arm A}
sites:
  - {code: S1, name: Site 1, country: Germany}
subjects:
  - {code: P-1, site: S1, arm: A}
"""


def faults_of(content: str, name: str = "t.yaml") -> list[tuple[int, str]]:
    with pytest.raises(TrialFileInvalid) as refused:
        apply_trial(actor=None, content=content, name=name)
    assert {fault["file"] for fault in refused.value.errors} == {name}
    assert Trial.objects.count() == 0
    assert AuditEvent.objects.count() == 0
    return [(fault["line"], fault["field"]) for fault in refused.value.errors]


def test_a_file_applied_again_changes_nothing():
    _, first = apply_trial(actor=None, content=SMALL, name="t.yaml")
    events = AuditEvent.objects.count()
    _, second = apply_trial(actor=None, content=SMALL, name="t.yaml")

    assert (len(first), second) == (4, [])
    assert AuditEvent.objects.count() == events


def test_the_demonstration_applies_twice(monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "a demonstration password")
    content = json.dumps(trial_document())

    _, first = apply_trial(actor=None, content=content, name="demo.json")
    _, second = apply_trial(actor=None, content=content, name="demo.json")

    assert first and second == []
    assert Protocol.objects.get().state == "draft"
    assert User.objects.get(username="sponsor").check_password("a demonstration password")


def test_a_dry_run_says_what_would_change_and_changes_nothing():
    apply_trial(actor=None, content=SMALL, name="t.yaml")
    events = AuditEvent.objects.count()

    _, changes = apply_trial(
        actor=None, content=SMALL.replace("Site 1,", "Renamed,"), name="t.yaml", dry_run=True
    )

    assert [(change.kind, change.what, change.fields) for change in changes] == [
        ("updated", "site S1", {"name": "Renamed"})
    ]
    assert Site.objects.get().name == "Site 1"
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("arms:", "armz:", [(2, "armz")]),
        ("name: Site 1", "name: 7", [(5, "sites.0.name")]),
        ("site: S1", "site: S9", [(7, "subjects.0.site")]),
        ("arm: A}", "arm: Z}", [(7, "subjects.0.arm")]),
        (", title: First", "", [(1, "trial")]),
        ("country: Germany", "land: Germany", [(5, "sites.0.land")]),
    ],
)
def test_a_fault_names_line_and_field_and_nothing_is_applied(old, new, expected):
    assert faults_of(SMALL.replace(old, new)) == expected


def test_the_same_code_twice_is_a_fault():
    doubled = SMALL.replace("subjects:", "  - {code: S1, name: Other}\nsubjects:")

    assert faults_of(doubled) == [(6, "sites.1")]


@pytest.mark.parametrize("content", ["trial: [", "- 1", "", "trial: {code: T1, title: T, title: U}"])
def test_what_is_no_document_is_refused_with_its_line(content):
    with pytest.raises(TrialFileInvalid, match="line 1"):
        apply_trial(actor=None, content=content, name="t.yaml")


def test_text_that_is_too_long_or_no_code_is_a_fault_not_a_failure():
    assert faults_of(SMALL.replace("code: S1, name", f"code: {'S' * 50}, name")) == [(5, "sites.0")]
    assert faults_of(SMALL.replace("code: T1", "code: 'T 1/..'")) == [(1, "trial")]


def test_an_administrator_of_another_trial_may_not_apply_it():
    stranger = MembershipFactory(trial=TrialFactory(), role=Role.TRIAL_ADMINISTRATOR).user

    with pytest.raises(TrialFileInvalid, match="administrator"):
        apply_trial(actor=stranger, content=SMALL, name="t.yaml")

    assert not Trial.objects.filter(code="T1").exists()


def test_memberships_are_checked():
    UserFactory(username="ann")
    content = SMALL + "memberships:\n  - {user: ann, role: site_coordinator}\n  - {user: bob, role: boss}\n"

    assert faults_of(content) == [(9, "memberships.0"), (10, "memberships.1.user")]


def test_the_command_prints_every_fault(tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text(SMALL.replace("site: S1", "site: S9"))

    with pytest.raises(CommandError, match=r"trial\.yaml:7: subjects\.0\.site: names the site"):
        call_command("apply_trial", str(path))

    assert (Subject.objects.count(), Membership.objects.count()) == (0, 0)
