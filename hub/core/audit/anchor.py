"""Anchors: signed heads of the chains, appended to a file outside the database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from django.utils import timezone

from hub.core.audit.services import heads
from hub.core.canonical import canonical_json
from hub.core.signatures.keys import sign_bytes, verify_bytes


def write_anchor(anchor_file: Path, *, purpose: str = "periodic") -> int:
    """Append one signed line per chain whose head moved since its last anchor; return how many."""
    anchor_file.parent.mkdir(parents=True, exist_ok=True)
    known = {anchor["chain"]: anchor["sequence"] for anchor in read_anchors(anchor_file)}
    lines = []
    for chain, sequence, digest in heads():
        if sequence and known.get(chain) != sequence:
            entry = {
                "chain": chain,
                "sequence": sequence,
                "hash": digest,
                "time": timezone.now().isoformat(),
                "purpose": purpose,
            }
            entry["signature"] = sign_bytes(canonical_json(entry))
            lines.append(canonical_json(entry) + b"\n")
    if lines:
        descriptor = os.open(anchor_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(b"".join(lines))
            stream.flush()
            os.fsync(stream.fileno())
    return len(lines)


def read_anchors(anchor_file: Path) -> list[dict[str, Any]]:
    """Return the anchors, each with `signature_valid`; an unreadable line counts as an invalid one."""
    if not anchor_file.exists():
        return []
    anchors = []
    for number, line in enumerate(anchor_file.read_text().splitlines(), start=1):
        try:
            entry = json.loads(line)
            signature = entry.pop("signature")
            valid = verify_bytes(canonical_json(entry), signature)
            anchors.append({**entry, "signature_valid": valid})
        except (ValueError, KeyError, TypeError):
            anchors.append(
                {"chain": f"anchor line {number}", "sequence": number, "hash": "", "signature_valid": False}
            )
    return anchors
