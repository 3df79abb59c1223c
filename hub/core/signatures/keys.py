"""The installation's Ed25519 key: signs receipts, manifests and audit anchors."""

from __future__ import annotations

from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@cache
def _private_key(seed: str) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    except ValueError as error:
        raise ImproperlyConfigured("HUB_SIGNING_KEY must be 64 hexadecimal digits.") from error


def sign_bytes(content: bytes) -> str:
    """Return the Ed25519 signature (hexadecimal) of `content`."""
    return _private_key(settings.HUB_SIGNING_KEY).sign(content).hex()


def verify_bytes(content: bytes, signature: str, public_key: str = "") -> bool:
    """Return whether `signature` is ours (or `public_key`'s, hexadecimal) over `content`."""
    key = (
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        if public_key
        else _private_key(settings.HUB_SIGNING_KEY).public_key()
    )
    try:
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_key() -> str:
    """Return the public key (hexadecimal) that receipts and manifests name."""
    return _private_key(settings.HUB_SIGNING_KEY).public_key().public_bytes_raw().hex()
