"""Tests: the same services as in production, on a private PostgreSQL and Redis started by the launcher."""

import tempfile
from pathlib import Path

from hub.settings.base import *  # noqa: F403
from hub.settings.base import DATABASES, env

SECRET_KEY = "test-only"
HUB_PSEUDONYM_KEY = "test-only"
HUB_SIGNING_KEY = "11" * 32
if env("HUB_OWNER_DATABASE_URL", default=""):
    DATABASES["default"] = env.db_url("HUB_OWNER_DATABASE_URL") | {"CONN_HEALTH_CHECKS": True}
_root = Path(env("HUB_TEST_ROOT", default=tempfile.mkdtemp(prefix="hub-test-")))
HUB_STORAGE_ROOT = _root / "data"
HUB_ANCHOR_FILE = _root / "anchor" / "anchors.jsonl"
STATIC_ROOT = _root / "static"
HUB_FREE_SPACE_FLOOR = 0.0
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
