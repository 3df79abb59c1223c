"""Tests: the same services as in production, on a private PostgreSQL and Redis started by the launcher."""

import os
import tempfile
from pathlib import Path

from hub.settings.base import *  # noqa: F403
from hub.settings.base import CACHES, DATABASES, REDIS_URL, env

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

# Tests that run side by side share one Redis: each process has a database of its own in it.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker:
    _number = int(_worker.removeprefix("gw")) + 1
    if REDIS_URL.startswith("unix://"):
        REDIS_URL = f"{REDIS_URL.split('?')[0]}?db={_number}"
        _socket = REDIS_URL.split("?")[0].removeprefix("unix://")
        CELERY_BROKER_URL = f"redis+socket://{_socket}?virtual_host={_number}"
    else:
        REDIS_URL = CELERY_BROKER_URL = f"{REDIS_URL.rsplit('/', 1)[0]}/{_number}"
    CACHES["default"]["LOCATION"] = REDIS_URL
