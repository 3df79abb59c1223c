"""Algorithm versions: registered from the code, verified here, locked with a signature, retired."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from harmonization_app.algorithms.environment import numerical_environment, one_blas_thread
from harmonization_app.algorithms.registry import ALGORITHMS, get_algorithm, source_digest
from harmonization_app.algorithms.verification import verify as run_verification
from harmonization_app.models import AlgorithmVersion, AlgorithmVersionState
from harmonization_app.models.algorithm import ALGORITHM_TRANSITIONS
from harmonization_app.permissions import require_algorithm_administrator, verifies_algorithms
from hub.core.audit.services import record
from hub.core.canonical import digest
from hub.core.errors import Conflict, NotAllowed
from hub.core.jobs.models import Job
from hub.core.jobs.services import enqueue
from hub.core.signatures.services import prove_identity, sign


class DigestDiffers(Conflict):
    code = "algorithm_digest_differs"
    title = "This is not the algorithm version that was locked"


def register_algorithms() -> list[AlgorithmVersion]:
    """Add a row for every algorithm of the code that has none yet; return the rows of the present code."""
    rows = []
    for algorithm_id in ALGORITHMS:
        algorithm = get_algorithm(algorithm_id)
        with transaction.atomic():
            row, created = AlgorithmVersion.objects.get_or_create(
                algorithm=algorithm_id,
                version=algorithm.version,
                code_digest=source_digest(algorithm),
                defaults={"title": algorithm.title, "parameters_schema": algorithm.parameters_schema()},
            )
            if created:
                record(
                    actor=None,
                    action="algorithm_version.registered",
                    obj=row,
                    new={"algorithm": str(row), "code_digest": row.code_digest},
                )
        rows.append(row)
    return rows


def request_verification(*, actor: Any, version: AlgorithmVersion) -> Job:
    """Enqueue the reproduction of the reference results here. Raises NotAllowed, Conflict, DigestDiffers."""
    if not verifies_algorithms(actor):
        raise NotAllowed("Algorithm versions are verified by statisticians and trial administrators.")
    _require_transition(version, AlgorithmVersionState.VERIFIED)
    require_present_code(version)
    with transaction.atomic():
        record(actor=actor, action="algorithm_version.verification_requested", obj=version)
        return enqueue(
            "harmonization.verify_algorithm",
            key=str(version.pk),
            arguments={"version_id": str(version.pk)},
            requested_by=actor,
        )


def verify_algorithm(*, version_id: str) -> AlgorithmVersion:
    """Reproduce the reference results and store case, difference and tolerance; verified only when all pass."""
    version = AlgorithmVersion.objects.get(pk=version_id)
    require_present_code(version)
    folder = os.environ.get("HUB_REFERENCE_DATA", "")
    reference = Path(folder) / "harmonization" if folder else None
    with one_blas_thread():
        environment = numerical_environment()
        report = run_verification(version.algorithm, reference if reference and reference.is_dir() else None)
    with transaction.atomic():
        row = AlgorithmVersion.objects.select_for_update(no_key=True).get(pk=version_id)
        _require_transition(row, AlgorithmVersionState.VERIFIED)
        row.verification = report.to_json()
        row.environment = environment.to_json()
        row.environment_digest = environment.digest
        if report.passed:
            row.state = AlgorithmVersionState.VERIFIED
            row.verified_at = timezone.now()
        row.save()
        record(
            actor=None,
            action="algorithm_version.verified" if report.passed else "algorithm_version.verification_failed",
            obj=row,
            new={
                "cases": len(report.cases),
                "report": digest(row.verification),
                "environment": row.environment_digest,
            },
        )
    return row


def lock_algorithm(
    *, actor: Any, version: AlgorithmVersion, password: str, meaning: str, otp: str = ""
) -> AlgorithmVersion:
    """Lock a verified version with a signature over its code, environment and verification.

    Raises NotAllowed, SignatureRefused, Conflict where it is not verified, DigestDiffers.
    """
    require_algorithm_administrator(actor, "lock algorithm versions")
    identity = prove_identity(actor=actor, password=password, otp=otp)
    with transaction.atomic():
        row = AlgorithmVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        _require_transition(row, AlgorithmVersionState.LOCKED)
        require_present_code(row)
        row.signature = sign(identity=identity, meaning=meaning, obj=row, object_digest=lock_digest(row))
        row.state = AlgorithmVersionState.LOCKED
        row.locked_at = timezone.now()
        row.save()
        record(
            actor=actor,
            action="algorithm_version.locked",
            obj=row,
            old={"state": "verified"},
            new={"state": "locked", "digest": lock_digest(row)},
        )
    return row


def retire_algorithm(*, actor: Any, version: AlgorithmVersion, reason: str) -> AlgorithmVersion:
    """Retire a locked version: plans keep it, new plans cannot choose it. Raises NotAllowed, Conflict."""
    require_algorithm_administrator(actor, "retire algorithm versions")
    if not reason.strip():
        raise Conflict("Retiring an algorithm version needs a reason.")
    with transaction.atomic():
        row = AlgorithmVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        _require_transition(row, AlgorithmVersionState.RETIRED)
        row.state = AlgorithmVersionState.RETIRED
        row.save(update_fields=["state"])
        record(
            actor=actor,
            action="algorithm_version.retired",
            obj=row,
            old={"state": "locked"},
            new={"state": "retired"},
            reason=reason,
        )
    return row


def lock_digest(version: AlgorithmVersion) -> str:
    """Return the digest that a lock signs: code, environment and what was verified."""
    return digest(
        {
            "algorithm": version.algorithm,
            "version": version.version,
            "code": version.code_digest,
            "environment": version.environment_digest,
            "verification": digest(version.verification),
        }
    )


def require_present_code(version: AlgorithmVersion) -> None:
    """Raise DigestDiffers unless the code that would run is the code of this version."""
    if source_digest(get_algorithm(version.algorithm)) != version.code_digest:
        raise DigestDiffers(
            f"The code of {version.algorithm} in this installation is not the code of version"
            f" {version.version} ({version.code_digest[:12]}…). Use the version registered for the present code."
        )


def _require_transition(version: AlgorithmVersion, target: str) -> None:
    if target not in ALGORITHM_TRANSITIONS[version.state]:
        raise Conflict(f"This algorithm version is {version.state}; it cannot become {target}.")
