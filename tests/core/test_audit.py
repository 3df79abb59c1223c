"""The audit chain: nothing is changed, removed or added unseen."""

from __future__ import annotations

import json

import pytest
from django.core.management import call_command
from django.db import InternalError, connection, transaction

from hub.core.audit.anchor import write_anchor
from hub.core.audit.models import AuditEvent
from hub.core.audit.services import merkle_root, record
from hub.core.audit.verification import verify
from tests.factories.sites_app import TrialFactory, UserFactory

pytestmark = pytest.mark.django_db


def write_events(count: int = 5):
    trial, person = TrialFactory(), UserFactory()
    for number in range(count):
        record(
            actor=person, action="thing.changed", obj=trial, old={"value": number}, new={"value": number + 1}
        )
    return trial


def tamper(statement: str, parameters: list) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_audit_event DISABLE TRIGGER USER")
        cursor.execute(statement, parameters)
        cursor.execute("ALTER TABLE core_audit_event ENABLE TRIGGER USER")


def test_events_follow_from_one_another_in_their_trials_chain():
    trial = write_events(3)

    events = list(AuditEvent.objects.filter(chain=str(trial.pk)).order_by("sequence"))

    assert [event.sequence for event in events] == [1, 2, 3]
    assert [event.previous_hash for event in events][1:] == [event.hash for event in events][:-1]
    assert verify().intact


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_the_database_refuses_changing_events(operation):
    write_events(1)

    with pytest.raises(InternalError), transaction.atomic():
        rows = AuditEvent.objects.all()
        rows.update(action="other") if operation == "update" else rows.delete()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payload", '{"new":{"value":99},"old":{},"origin":{},"reason":""}'),
        ("actor_name", "somebody else"),
        ("action", "nothing.happened"),
        ("object_id", "other"),
        ("items_count", 7),
    ],
)
def test_a_changed_column_is_found(column, value):
    trial = write_events(5)

    tamper(
        f"UPDATE core_audit_event SET {column} = %s WHERE chain = %s AND sequence = 3", [value, str(trial.pk)]
    )

    result = verify()
    assert [(item.chain, item.sequence) for item in result.breaks] == [(str(trial.pk), 3)]


def test_a_removed_event_is_found():
    trial = write_events(5)

    tamper("DELETE FROM core_audit_event WHERE chain = %s AND sequence = 2", [str(trial.pk)])

    assert "1 event(s) before this one are missing" in [item.problem for item in verify().breaks]


def test_a_cut_tail_with_a_repaired_head_is_found_by_the_anchor_alone(settings):
    trial = write_events(5)
    write_anchor(settings.HUB_ANCHOR_FILE)
    chain = str(trial.pk)

    tamper("DELETE FROM core_audit_event WHERE chain = %s AND sequence = 5", [chain])
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE core_audit_head SET sequence = 4, hash ="
            " (SELECT hash FROM core_audit_event WHERE chain = %s AND sequence = 4) WHERE chain = %s",
            [chain, chain],
        )

    assert verify().intact
    assert [item.problem for item in verify(settings.HUB_ANCHOR_FILE).breaks] == [
        "an anchored event is missing"
    ]


def test_a_forged_anchor_is_found(settings):
    write_events(1)
    write_anchor(settings.HUB_ANCHOR_FILE)
    entry = json.loads(settings.HUB_ANCHOR_FILE.read_text())
    settings.HUB_ANCHOR_FILE.write_text(json.dumps({**entry, "hash": "0" * 64}) + "\nnot json\n")

    problems = {item.problem for item in verify(settings.HUB_ANCHOR_FILE).breaks}

    assert problems == {"the anchor's signature is not valid"}


def test_anchors_are_written_only_when_a_chain_moved(settings):
    write_events(1)

    assert write_anchor(settings.HUB_ANCHOR_FILE) == 1
    assert write_anchor(settings.HUB_ANCHOR_FILE) == 0


def test_verify_audit_exits_with_the_first_broken_event(capsys, tmp_path):
    trial = write_events(3)
    call_command("verify_audit", "--export", str(tmp_path / "audit.jsonl"))
    assert "intact" in capsys.readouterr().out
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == AuditEvent.objects.count()

    tamper("UPDATE core_audit_event SET action = 'x' WHERE sequence = 2 AND chain = %s", [str(trial.pk)])

    with pytest.raises(SystemExit) as ended:
        call_command("verify_audit")
    assert ended.value.code == 1
    assert f"BROKEN: chain {trial.pk}, event 2" in capsys.readouterr().err


def test_a_merkle_root_depends_on_every_item_and_its_place():
    digests = [f"{number:064x}" for number in range(5)]

    roots = {merkle_root(digests), merkle_root(digests[::-1]), merkle_root(digests[:4]), merkle_root([])}

    assert len(roots) == 4
