"""Receipts: what arrived, file by file, signed with the hub's key."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hub.core.canonical import canonical_json
from hub.core.errors import NotFound
from hub.core.signatures.keys import public_key, sign_bytes, verify_bytes
from hub.core.storage.blobs import get_blob, put_blob
from sites_app.ingest.manifest import ManifestProblem
from sites_app.models import Submission, SubmissionFile, Upload

FORMAT = "hub-receipt-1"

_parts: dict[str, Callable[[Submission], Any]] = {}


def register_receipt_part(name: str, function: Callable[[Submission], Any]) -> None:
    """Let an upper layer add `name` to every receipt, for example the protocol version. Register in ready()."""
    _parts[name] = function


def issue_receipt(submission: Submission, problems: Sequence[ManifestProblem]) -> str:
    """Store a finished submission's signed receipt and return its digest."""
    content = _content(submission, problems)
    document = {
        "receipt": content,
        "algorithm": "Ed25519",
        "public_key": public_key(),
        "signature": sign_bytes(canonical_json(content)),
    }
    return put_blob(canonical_json(document))


def load_receipt(submission: Submission) -> bytes:
    """Return the receipt as it was signed. Raises NotFound before the submission is finished."""
    if not submission.receipt_digest:
        raise NotFound(
            f"There is no receipt yet: this submission is {submission.get_state_display()}."
            " Complete it and wait until it is in a final state."
        )
    return get_blob(submission.receipt_digest)


def receipt_is_ours(document: bytes) -> bool:
    """Return whether a receipt was signed by this hub and is unchanged."""
    try:
        found = json.loads(document)
        content = canonical_json(found["receipt"])
        return verify_bytes(content, found["signature"])
    except (ValueError, KeyError, TypeError):
        return False


def _content(submission: Submission, problems: Sequence[ManifestProblem]) -> dict[str, Any]:
    files = SubmissionFile.objects.filter(submission=submission).order_by("upload__created_at", "ordinal")
    columns = ("upload_id", "ordinal", "sha256", "size", "outcome", "code")
    uploads = Upload.objects.filter(submission=submission).order_by("created_at")
    profile = submission.profile
    return {
        "format": FORMAT,
        "submission": str(submission.pk),
        "trial": submission.trial.code,
        "site": submission.site.code,
        "subject": submission.subject.code,
        "visit": submission.visit.definition.code,
        "state": submission.state,
        "reason": submission.reason,
        "counts": submission.counts,
        "deidentification_profile": {"version": profile.version, "digest": profile.digest},
        "opened_at": _time(submission.created_at),
        "completed_at": _time(submission.completed_at),
        "finished_at": _time(submission.finished_at),
        "uploads": [
            {"id": str(row.pk), "sha256": row.sha256, "size": row.size, "state": row.state} for row in uploads
        ],
        "files": [
            dict(zip(("upload", *columns[1:]), (str(row[0]), *row[1:]), strict=True))
            for row in files.values_list(*columns)
        ],
        "manifest_problems": [
            {"position": item.position, "code": item.code, "sha256": item.sha256} for item in problems
        ],
        **{name: function(submission) for name, function in sorted(_parts.items())},
    }


def _time(value: Any) -> str | None:
    return value.isoformat() if value is not None else None
