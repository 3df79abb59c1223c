"""Locked versions, made row by row for tests that need them to exist but not to judge."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest import mock

from django.utils import timezone

from harmonization_app.algorithms.verification import VerificationReport, verify
from harmonization_app.models import AlgorithmVersion
from harmonization_app.services import algorithm as algorithm_services
from hub.core.models import ElectronicSignature
from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.models import Protocol, QCProfile
from qc_app.protocol.schema import parse_protocol
from sites_app.models import Trial
from tests.factories.qc_app import protocol_document
from tests.factories.sites_app import PASSWORD, UserFactory


@cache
def _verified(algorithm: str) -> VerificationReport:
    return verify(algorithm, None)


def lock_algorithm(version: AlgorithmVersion, administrator: Any) -> AlgorithmVersion:
    """Verify a version, and lock it by the administrator's signature and that of another one.

    The packaged suite is reproduced once in a process: what verification finds has tests of its own.
    """
    with mock.patch.object(algorithm_services, "run_verification", lambda name, reference: _verified(name)):
        algorithm_services.verify_algorithm(version_id=str(version.pk))
    for actor in (administrator, UserFactory(is_superuser=True)):
        version = algorithm_services.lock_algorithm(
            actor=actor, version=version, password=PASSWORD, meaning="I approve this version"
        )
    return version


_DOCUMENTS = {
    Protocol: lambda: dict(parse_protocol(protocol_document()).document),
    QCProfile: lambda: dict(DEFAULT_PROFILE),
}


def lock_versions(trial: Trial, signer: Any) -> None:
    """Give the trial a locked protocol and a locked QC profile."""
    for model in (Protocol, QCProfile):
        signature = ElectronicSignature.objects.create(
            signer=signer,
            printed_name=str(signer),
            meaning="test",
            signed_at=timezone.now(),
            object_type=model._meta.label_lower,
            object_id="0",
            object_digest="0" * 64,
        )
        model.objects.create(
            trial=trial,
            version=1,
            title="Locked",
            document=_DOCUMENTS[model](),
            digest="0" * 64,
            state="locked",
            signature=signature,
            locked_at=timezone.now(),
        )
