"""TOTP, kept by allauth: whether it is switched on and whether a code is right."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator


def has_second_factor(user: Any) -> bool:
    return Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists()


def second_factor_matches(user: Any, code: str) -> bool:
    """Return whether `code` is a valid TOTP or unused recovery code of `user` (a recovery code is used up)."""
    if not code:
        return False
    return any(
        authenticator.wrap().validate_code(code)
        for authenticator in Authenticator.objects.filter(
            user=user, type__in=[Authenticator.Type.TOTP, Authenticator.Type.RECOVERY_CODES]
        )
    )
