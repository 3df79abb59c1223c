"""Accounts are made by administrators: nobody signs up. Logins and refusals are audited."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.db import transaction
from knox.models import AuthToken

from hub.core.accounts.lockout import record_failed_login
from hub.core.audit.services import record


class ClosedAccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: Any) -> bool:
        return False

    def login(self, request: Any, user: Any) -> None:
        super().login(request, user)
        record(actor=user, action="login.succeeded", obj=user, new={"via": "page"})

    def logout(self, request: Any) -> None:
        user = request.user
        super().logout(request)
        record(actor=user, action="logout", obj=user if user.pk else None, object_type="core.user")

    def authentication_failed(self, request: Any, **credentials: Any) -> None:
        record_failed_login(str(credentials.get("username", "")))

    def pre_authenticate(self, request: Any, **credentials: Any) -> None:
        """Leave the lockout of passwords to django-axes; allauth's own limit stays for one-time codes."""

    def set_password(self, user: Any, password: str) -> None:
        """Change the password and end every token: who holds an old one may be why it is changed."""
        with transaction.atomic():
            super().set_password(user, password)
            ended, _ = AuthToken.objects.filter(user=user).delete()
            record(actor=user, action="user.password_changed", obj=user, new={"tokens_ended": ended})
