"""Two administrators lock an algorithm version; nothing less does."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import InternalError, transaction
from django.db.utils import IntegrityError

from harmonization_app.algorithms.combat import Combat
from harmonization_app.models import AlgorithmVersion
from harmonization_app.services import algorithm as services
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, NotAllowed
from tests.factories.sites_app import PASSWORD, UserFactory
from tests.harmonization_app.harmonization_cases import locked_combat


@pytest.fixture
def verified(people: Any) -> AlgorithmVersion:
    version = next(row for row in services.register_algorithms() if row.algorithm == "combat")
    return services.verify_algorithm(version_id=str(version.pk))


def sign(version: AlgorithmVersion, actor: Any) -> AlgorithmVersion:
    return services.lock_algorithm(actor=actor, version=version, password=PASSWORD, meaning="I approve")


def test_the_first_signature_is_stored_and_the_second_locks(verified, people):
    first = sign(verified, people.admin)
    assert (first.state, first.signature.signer, first.second_signature) == ("verified", people.admin, None)
    assert first.locked_at is None

    second = sign(verified, people.second_admin)

    assert (second.state, second.second_signature.signer) == ("locked", people.second_admin)
    assert second.signature_id == first.signature_id
    assert second.locked_at is not None
    content = services.lock_digest(second)
    assert {second.signature.object_digest, second.second_signature.object_digest} == {content}
    actions = AuditEvent.objects.filter(object_id=str(verified.pk)).values_list("action", flat=True)
    assert {"algorithm_version.signed", "algorithm_version.locked"} <= set(actions)


def test_one_person_cannot_sign_twice(verified, people):
    sign(verified, people.admin)

    with pytest.raises(Conflict, match="second, different administrator"):
        sign(verified, people.admin)

    verified.refresh_from_db()
    assert (verified.state, verified.second_signature) == ("verified", None)


def test_a_statistician_is_no_second_administrator(verified, people):
    sign(verified, people.admin)

    with pytest.raises(NotAllowed):
        sign(verified, people.statistician)


def test_a_new_verification_clears_the_first_signature(verified, people):
    sign(verified, people.admin)

    services.verify_algorithm(version_id=str(verified.pk))

    verified.refresh_from_db()
    assert (verified.state, verified.signature) == ("verified", None)
    assert AuditEvent.objects.filter(action="algorithm_version.signature_withdrawn").count() == 1
    assert sign(verified, people.second_admin).state == "verified"


def test_a_version_that_no_longer_reproduces_its_results_is_not_verified(verified, people, monkeypatch):
    monkeypatch.setattr(services, "run_verification", lambda algorithm, folder: _Failed())

    services.verify_algorithm(version_id=str(verified.pk))

    verified.refresh_from_db()
    assert (verified.state, verified.verified_at) == ("registered", None)
    with pytest.raises(Conflict):
        sign(verified, people.admin)


class _Failed:
    passed = False
    cases = ()

    def to_json(self) -> dict[str, Any]:
        return {"passed": False, "cases": []}


@pytest.mark.parametrize("change", ["verification", "environment_digest", "parameters_schema"])
def test_both_signatures_bind_the_same_content(verified, people, change):
    sign(verified, people.admin)
    AlgorithmVersion.objects.filter(pk=verified.pk).update(
        **{change: "0" * 64 if change == "environment_digest" else {"passed": True}}
    )

    with pytest.raises(Conflict, match="first signature is not over this version"):
        sign(verified, people.second_admin)


def test_an_exploratory_method_cannot_be_locked(verified, people, monkeypatch):
    monkeypatch.setattr(Combat, "exploratory", True)

    with pytest.raises(Conflict, match="exploratory"):
        sign(verified, people.admin)


def test_the_database_refuses_a_lock_with_one_signature(verified, people):
    sign(verified, people.admin)
    rows = AlgorithmVersion.objects.filter(pk=verified.pk)

    with pytest.raises(IntegrityError, match="has_every_signature"), transaction.atomic():
        rows.update(state="locked")
    with pytest.raises(InternalError, match="two signatures"), transaction.atomic():
        rows.update(state="locked", signatures_required=1)
    verified.refresh_from_db()
    with pytest.raises(InternalError, match="Two different administrators"), transaction.atomic():
        rows.update(state="locked", second_signature=verified.signature)


def test_a_locked_version_keeps_both_signatures(people):
    version = locked_combat(people.admin)

    with pytest.raises(InternalError, match="cannot be changed"), transaction.atomic():
        AlgorithmVersion.objects.filter(pk=version.pk).update(second_signature=None)


def test_an_administrator_of_the_hub_may_be_the_second(verified, people):
    sign(verified, people.admin)

    assert sign(verified, UserFactory(is_superuser=True)).state == "locked"
