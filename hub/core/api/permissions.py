"""The API denies by default: a view without a stated permission answers nobody."""

from typing import Any

from rest_framework.permissions import BasePermission


class DenyByDefault(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class LoggedIn(BasePermission):
    """Anyone with an account. What they see is said by `visible_to`, what they may do by the services."""

    def has_permission(self, request: Any, view: Any) -> bool:
        return bool(request.user and request.user.is_authenticated)
