"""The environment given to Django: addresses of the private services and secrets made once per VAR."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import quote

from hub.launcher.layout import Layout

DATABASE = "hub"
OWNER_ROLE = "hub_owner"
APP_ROLE = "hub_app"
GENERATED = ("HUB_SECRET_KEY", "HUB_PSEUDONYM_KEY", "HUB_SIGNING_KEY")
_SECRET_BYTES = 32
# More threads than one per task made the numerical kernels slower and their bits irreproducible.
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def database_url(role: str, socket_folder: Path, database: str = DATABASE) -> str:
    """Return django-environ's form of a database behind a unix socket."""
    return f"postgres://{role}@/{quote(str(socket_folder))}/{database}"


def hub_environment(
    layout: Layout, sockets: Path, settings: str = "hub.settings.development"
) -> dict[str, str]:
    """Return the whole environment of the hub's processes: the caller's own, then ours.

    Secrets set by the caller win over the generated ones."""
    generated = read_secrets(layout.secrets / "hub.env")
    chosen = {name: os.environ.get(name) or value for name, value in generated.items()}
    ours = {
        "DJANGO_SETTINGS_MODULE": settings,
        "HUB_DATABASE_URL": database_url(APP_ROLE, sockets / "postgres"),
        "HUB_OWNER_DATABASE_URL": database_url(OWNER_ROLE, sockets / "postgres"),
        "HUB_REDIS_URL": f"unix://{quote(str(sockets / 'redis.sock'))}",
        "HUB_STORAGE_ROOT": str(layout.var / "data"),
        "HUB_UPLOAD_TEMP_DIR": str(layout.var / "bodies"),
        "HUB_ANCHOR_FILE": str(layout.var / "anchor" / "anchors.jsonl"),
        "HUB_BEAT_SCHEDULE_FILE": str(layout.run / "beat-schedule"),
        "HUB_BASE_URL": layout.base_url,
        "HUB_ALLOWED_HOSTS": os.environ.get("HUB_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]"),
        "PYTHONUNBUFFERED": "1",
        # Compiled modules are kept whatever the shell says: without them each start takes seconds longer.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": str(layout.root),
        "PATH": f"{layout.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    return dict(os.environ) | chosen | ours | _ONE_THREAD


def read_secrets(
    file: Path, names: tuple[str, ...] = GENERATED, length_bytes: int = _SECRET_BYTES
) -> dict[str, str]:
    """Return the secrets kept in `file` (mode 0600), making those that are missing, in hexadecimal."""
    kept: dict[str, str] = {}
    if file.exists():
        pairs = (line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines() if "=" in line)
        kept = {name.strip(): value.strip() for name, value in pairs}
    missing = [name for name in names if not kept.get(name)]
    if missing:
        kept |= {name: secrets.token_hex(length_bytes) for name in missing}
        write_private(file, "".join(f"{name}={value}\n" for name, value in kept.items()))
    return kept


def write_private(file: Path, text: str) -> None:
    """Replace `file` by `text`, readable by its owner alone, whole or not at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(
        os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
