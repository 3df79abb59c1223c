"""Sessions end after a time without a request (21 CFR 11.200; HUB_IDLE_TIMEOUT_S)."""

import time
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse

_RESOLUTION_S = 30


class IdleTimeoutMiddleware:
    """Log a session out once it has been idle; the time is written at most every half minute."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "_auth_user_id" in request.session:
            now = int(time.time())
            last = request.session.get("last_seen", now)
            if now - last > settings.HUB_IDLE_TIMEOUT_S:
                logout(request)
            elif "last_seen" not in request.session or now - last > _RESOLUTION_S:
                request.session["last_seen"] = now
        return self.get_response(request)
