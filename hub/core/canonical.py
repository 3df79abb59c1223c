"""Canonical JSON and its digest: the one form in which locked things are compared and signed."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Return `value` as UTF-8 JSON with sorted keys and no insignificant white space.

    Numbers keep Python's shortest round-trip form (RFC 8785 differs only in the exponent's spelling).

    Raises ValueError for NaN and infinity, TypeError for what JSON cannot hold.
    """
    _refuse_non_finite(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 (hexadecimal) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Canonical JSON holds no NaN or infinity; write null and a reason instead.")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_non_finite(item)
