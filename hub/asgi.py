"""ASGI entry point, behind a guard that refuses oversized or encoded bodies before reading them."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hub.settings.production")

import django

django.setup(set_prefix=False)

from hub.core.api.body_guard import BodyGuard  # noqa: E402
from hub.core.api.threads import ReusedThreadsHandler  # noqa: E402

application = BodyGuard(ReusedThreadsHandler())
