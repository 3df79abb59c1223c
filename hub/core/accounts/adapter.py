"""Accounts are made by administrators: nobody signs up. Logins and refusals are audited."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter

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
        record(actor=None, action="login.failed", object_type="core.user")
