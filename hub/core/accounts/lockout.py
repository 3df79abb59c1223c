"""What a locked-out login sees, in page and API."""

from __future__ import annotations

from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_client_ip_address
from django.conf import settings
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest, HttpResponse

from hub.core.accounts.models import User
from hub.core.audit.services import record
from hub.core.error_pages import answer_problem
from hub.core.errors import HubError


class LockedOut(HubError):
    code = "locked_out"
    title = "Too many failed logins"
    http_status = 429
    retry_after_s = round(settings.AXES_COOLOFF_TIME * 3600)

    def __init__(self) -> None:
        super().__init__(
            "This account is locked after five failed logins. Wait 15 minutes, or ask the administrator."
        )


def record_failed_login(username: str, reason: str = "") -> None:
    """Audit a failed login; an unknown user name is not kept, it may be a mistyped password."""
    user = User.objects.filter(username=username).first()
    record(actor=None, action="login.failed", obj=user, object_type="core.user", reason=reason)


def count_failure(request: HttpRequest, username: str) -> None:
    """Count a failure that Django did not see, for example a wrong one-time code, towards the lockout."""
    user_login_failed.send(sender=__name__, credentials={"username": username}, request=request)


def forget_failures(request: HttpRequest, username: str) -> None:
    """Begin counting anew after a success from the same address."""
    AxesProxyHandler.reset_attempts(ip_address=get_client_ip_address(request), username=username)


def refuse_locked_out(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    return answer_problem(request, LockedOut())
