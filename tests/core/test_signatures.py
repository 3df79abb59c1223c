"""Electronic signatures: who may sign, what is kept of a refusal, and what a signature is bound to."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from rest_framework.test import APIClient

from hub.core.audit.models import AuditEvent
from hub.core.errors import InvalidInput
from hub.core.models import ElectronicSignature
from hub.core.signatures.services import SignatureRefused, prove_identity, sign
from qc_app.models import VersionState
from qc_app.services.protocol import create_draft
from sites_app.models import Role
from tests.factories.qc_app import protocol_document
from tests.factories.sites_app import PASSWORD, MembershipFactory, TrialFactory, VisitDefinitionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def draft():
    cache.clear()
    admin = MembershipFactory(role=Role.TRIAL_ADMINISTRATOR).user
    trial = admin.memberships.get().trial
    VisitDefinitionFactory(trial=trial)
    return admin, create_draft(actor=admin, trial=trial, document=protocol_document(), title="")


def lock(user, row, **changes):
    client = APIClient()
    client.force_authenticate(user)
    body = {"password": PASSWORD, "meaning": "I approve this.", **changes}
    return client.post(f"/api/v1/protocols/{row.pk}/lock/", body, format="json")


def test_a_signature_names_the_signer_the_meaning_and_the_digest_of_what_was_signed(draft):
    admin, row = draft

    answer = lock(admin, row)

    assert answer.status_code == 200, answer.json()["detail"]
    row.refresh_from_db()
    signature = ElectronicSignature.objects.get(pk=row.signature_id)
    assert (signature.signer, signature.meaning) == (admin, "I approve this.")
    assert signature.object_digest == row.digest
    assert signature.second_factor is False


def test_a_wrong_password_signs_nothing_and_is_audited(draft):
    admin, row = draft

    refused = lock(admin, row, password="wrong")

    row.refresh_from_db()
    assert (refused.status_code, refused.json()["code"]) == (403, "signature_refused")
    assert (row.state, row.signature_id) == (VersionState.DRAFT, None)
    assert AuditEvent.objects.filter(action="signature.refused", actor_id=admin.pk).count() == 1


def test_five_wrong_passwords_lock_signing(draft):
    admin, row = draft
    for _ in range(5):
        lock(admin, row, password="wrong")

    refused = lock(admin, row)

    assert refused.status_code == 403
    assert "locked" in refused.json()["detail"]


@pytest.mark.parametrize("meaning", ["", "   "])
def test_a_signature_needs_its_meaning(draft, meaning):
    admin, row = draft

    assert lock(admin, row, meaning=meaning).status_code == 400
    assert ElectronicSignature.objects.count() == 0


def test_a_meaning_of_blanks_is_refused_by_the_service_too():
    user = MembershipFactory().user
    identity = prove_identity(actor=user, password=PASSWORD)

    with pytest.raises(InvalidInput):
        sign(identity=identity, meaning=" ", obj=TrialFactory(), object_digest="0" * 64)


def test_an_empty_password_proves_nothing():
    with pytest.raises(SignatureRefused):
        prove_identity(actor=MembershipFactory().user, password="")
