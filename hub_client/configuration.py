"""Which hub, and which token: from the environment, else from a file that only its owner may read."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class NotConfigured(Exception):
    """There is no usable hub or token; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Configuration:
    url: str
    token: str


def configuration_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the file: `hub-client` in $XDG_CONFIG_HOME, by default ~/.config."""
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hub-client"


def load(environment: Mapping[str, str] = os.environ) -> Configuration:
    """Return the configuration; HUB_URL and HUB_TOKEN go before the file. Raises NotConfigured.

    The token of the file is only for the hub of the file: another HUB_URL needs its own HUB_TOKEN.
    """
    url, token = environment.get("HUB_URL", ""), environment.get("HUB_TOKEN", "")
    if not (url and token):
        stored = _read(configuration_file(environment))
        if not token and (not url or _same(url, stored.get("url", ""))):
            token = stored.get("token", "")
        url = url or stored.get("url", "")
    if not url:
        raise NotConfigured(
            "Which hub? Set HUB_URL, or run: hub-client login --url https://hub.example USERNAME"
        )
    if not token:
        raise NotConfigured(
            f"There is no token for {url}. Set HUB_TOKEN, or run: hub-client login --url {url} USERNAME"
        )
    return Configuration(url, token)


def save(configuration: Configuration, environment: Mapping[str, str] = os.environ) -> Path:
    """Write the file, readable by its owner alone, and return its path."""
    path = configuration_file(environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes a file of mode 0600, so that the token is never readable by others.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".hub-client-")
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"url": configuration.url, "token": configuration.token}, stream)
    os.replace(temporary, path)
    return path


def _read(path: Path) -> dict[str, str]:
    try:
        mode = path.stat().st_mode
        content = path.read_text()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NotConfigured(f"{path} cannot be read: {error.strerror}.") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotConfigured(f"{path} holds a token and others may read it. Run: chmod 600 {path}")
    try:
        stored = json.loads(content)
        return {name: str(stored[name]) for name in ("url", "token") if name in stored}
    except (ValueError, TypeError) as error:
        raise NotConfigured(f"{path} is damaged. Run hub-client login again.") from error


def _same(first: str, second: str) -> bool:
    return first.rstrip("/") == second.rstrip("/")
