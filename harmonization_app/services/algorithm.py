"""Algorithm versions: registered from the code, verified here, locked with a signature, retired."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from harmonization_app.algorithms.base import Algorithm
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
    known = {
        (row.algorithm, row.version, row.code_digest): row
        for row in AlgorithmVersion.objects.filter(algorithm__in=ALGORITHMS)
    }
    rows = []
    for algorithm_id, algorithm in ALGORITHMS.items():
        code_digest = source_digest(algorithm)
        row = known.get((algorithm_id, algorithm.version, code_digest))
        rows.append(row or _register(algorithm, code_digest))
    return rows


def _register(algorithm: Algorithm, code_digest: str) -> AlgorithmVersion:
    with transaction.atomic():
        row, created = AlgorithmVersion.objects.get_or_create(
            algorithm=algorithm.id,
            version=algorithm.version,
            code_digest=code_digest,
            defaults={"title": algorithm.title, "parameters_schema": algorithm.parameters_schema()},
        )
        if created:
            record(
                actor=None,
                action="algorithm_version.registered",
                obj=row,
                new={"algorithm": str(row), "code_digest": row.code_digest},
            )
    return row


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
        _withdraw_signature(row)
        row.verification = report.to_json()
        row.environment = environment.to_json()
        row.environment_digest = environment.digest
        # A version that no longer reproduces its results must not stay open to a lock.
        row.state = AlgorithmVersionState.VERIFIED if report.passed else AlgorithmVersionState.REGISTERED
        row.verified_at = timezone.now() if report.passed else None
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


def _withdraw_signature(row: AlgorithmVersion) -> None:
    """Clear the first signature: a new verification changes the digest that it is over."""
    if row.signature is None:
        return
    record(
        actor=None,
        action="algorithm_version.signature_withdrawn",
        obj=row,
        old={"signature": str(row.signature.pk), "digest": row.signature.object_digest},
        reason="The version was verified again: what was signed has changed. Both administrators sign anew.",
    )
    row.signature = None


def lock_algorithm(
    *, actor: Any, version: AlgorithmVersion, password: str, meaning: str, otp: str = ""
) -> AlgorithmVersion:
    """Sign a verified version; the signature of a second, different administrator locks it.

    Both sign the same digest, over code, parameters' schema, environment and verification.

    Raises NotAllowed, SignatureRefused, DigestDiffers, and Conflict where the version is not verified, is of an
    exploratory method, or has the actor's signature already.
    """
    require_algorithm_administrator(actor, "lock algorithm versions")
    identity = prove_identity(actor=actor, password=password, otp=otp)
    with transaction.atomic():
        row = AlgorithmVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        _require_lockable(row, actor)
        content = lock_digest(row)
        signature = sign(identity=identity, meaning=meaning, obj=row, object_digest=content)
        if row.signature is None:
            row.signature = signature
            row.save(update_fields=["signature"])
            record(
                actor=actor,
                action="algorithm_version.signed",
                obj=row,
                new={"digest": content, "signatures": 1, "required": row.signatures_required},
            )
            return row
        row.second_signature = signature
        row.state, row.locked_at = AlgorithmVersionState.LOCKED, timezone.now()
        row.save(update_fields=["second_signature", "state", "locked_at"])
        record(
            actor=actor,
            action="algorithm_version.locked",
            obj=row,
            old={"state": "verified"},
            new={"state": "locked", "digest": content, "signatures": 2},
        )
    return row


def _require_lockable(row: AlgorithmVersion, actor: Any) -> None:
    """Raise Conflict or DigestDiffers unless `actor` may sign `row` as it stands."""
    _require_transition(row, AlgorithmVersionState.LOCKED)
    require_present_code(row)
    if get_algorithm(row.algorithm).exploratory:
        raise Conflict(
            f"The algorithm {row.algorithm} is exploratory: it cannot be locked, and no primary run uses it."
        )
    if row.signature is None:
        return
    if row.signature.signer_id == actor.pk:
        raise Conflict(
            f"You signed this version on {row.signature.signed_at:%Y-%m-%d}. A second, different administrator"
            " has to sign it too; then it is locked."
        )
    if row.signature.object_digest != lock_digest(row):
        raise Conflict(
            "The first signature is not over this version as it stands. Verify it again; both administrators"
            " then sign anew."
        )


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
    """Return the digest that a lock signs: code, parameters' schema, environment and what was verified.

    Versions locked by one signature were signed before the schema was named beside the code's digest, which binds
    it too.
    """
    content = {
        "algorithm": version.algorithm,
        "version": version.version,
        "code": version.code_digest,
        "environment": version.environment_digest,
        "verification": digest(version.verification),
    }
    if version.signatures_required > 1:
        content["parameters_schema"] = digest(version.parameters_schema)
    return digest(content)


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
