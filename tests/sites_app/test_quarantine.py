"""Deciding about quarantined files."""

from __future__ import annotations

import pytest

from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, InvalidInput, NotAllowed
from hub.demo.simulator import simulate_secondary_capture
from sites_app.ingest.quarantine_area import quarantine_path
from sites_app.models import QuarantinedFile, Role
from sites_app.services.quarantine import discard_quarantined_file

pytestmark = pytest.mark.django_db


@pytest.fixture
def held(receiving):  # type: ignore[no-untyped-def]
    submission = receiving.open()
    receiving.send(submission, simulate_secondary_capture().files[0].data)
    receiving.work()
    return QuarantinedFile.objects.get()


def test_a_data_manager_discards_a_file_once_and_says_why(
    receiving, held, django_capture_on_commit_callbacks
):
    manager = receiving.member(Role.DATA_MANAGER)

    with django_capture_on_commit_callbacks(execute=True):
        discard_quarantined_file(actor=manager, quarantined=held, reason="screen copy")

    held.refresh_from_db()
    assert held.state == "discarded" and not quarantine_path(held.pk).exists()
    assert '"reason":"screen copy"' in AuditEvent.objects.get(action="quarantine.discarded").payload
    with pytest.raises(Conflict):
        discard_quarantined_file(actor=manager, quarantined=held, reason="again")


def test_nobody_else_discards_and_nobody_without_a_reason(receiving, held):
    with pytest.raises(NotAllowed):
        discard_quarantined_file(actor=receiving.coordinator, quarantined=held, reason="mine")
    with pytest.raises(InvalidInput):
        discard_quarantined_file(actor=receiving.member(Role.DATA_MANAGER), quarantined=held, reason=" ")
    assert quarantine_path(held.pk).exists()
