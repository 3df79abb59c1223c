"""ASGI entry point, behind a guard that refuses oversized or encoded bodies before reading them."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hub.settings.production")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from hub.core.api.body_guard import BodyGuard  # noqa: E402

application = BodyGuard(django_application)
