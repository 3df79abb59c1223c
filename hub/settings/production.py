"""Production: every secret and address must be given; a missing one is refused at start with its name."""

from django.core.exceptions import ImproperlyConfigured

from hub.settings.base import *  # noqa: F403
from hub.settings.base import env

REQUIRED = [
    "HUB_SECRET_KEY",
    "HUB_PSEUDONYM_KEY",
    "HUB_SIGNING_KEY",
    "HUB_DATABASE_URL",
    "HUB_REDIS_URL",
    "HUB_STORAGE_ROOT",
    "HUB_ANCHOR_FILE",
    "HUB_ALLOWED_HOSTS",
    "HUB_BASE_URL",
]
_missing = [name for name in REQUIRED if not env.str(name, default="").strip()]
if _missing:
    raise ImproperlyConfigured(
        f"Set {', '.join(_missing)}: production starts only when each is given (see docs/operation.md)."
    )

_https = env.str("HUB_BASE_URL").startswith("https://")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = _https
CSRF_COOKIE_SECURE = _https
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
